//! What can go wrong: what is said, what to do next, and the exit code.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use qluster_client::model::ErrorCode;
use qluster_client::{Cause, Error};

/// The help's last paragraph.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    something failed on this machine: a file, a program
  2    the command line, a contexts' file or a setting is wrong
  3    the cluster refused: it, or a node, is not in the state for this; nothing was changed
  4    no node answered in time, or nobody leads
  5    not confirmed: the change may still take effect; look before you repeat it
  6    a credential is missing, wrong, or not enough
  7    not agreed to, or nobody to ask
  130  interrupted";

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Cluster(#[from] Error),
    /// The command line, or a file of the user's, does not fit.
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    /// The cluster is not in the state for it, as is seen before it is asked.
    #[error("{message}")]
    Refused { message: String, hint: Option<String> },
    /// Nobody leads, as is seen before the cluster is asked.
    #[error("{message}")]
    NobodyLeads { message: String, hint: &'static str },
    #[error("cannot {attempted}")]
    File {
        attempted: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read {path}")]
    Yaml {
        path: PathBuf,
        #[source]
        source: serde_norway::Error,
    },
    #[error("there is no program `{0}`")]
    MissingProgram(&'static str, &'static str),
    #[error("cannot write the answer as {0}: {1}")]
    Format(&'static str, String),
    #[error("there is nobody to ask, since standard input is no terminal\n{0}")]
    NobodyToAsk(String),
    #[error("nothing was done")]
    Declined,
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Refused { message: message.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn file(attempted: impl Into<String>, source: std::io::Error) -> Self {
        Failure::File { attempted: attempted.into(), source }
    }

    /// Says it on standard error, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            // Whoever read the output has enough: `qluster events | head`.
            Failure::File { source, .. } if source.kind() == ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Failure::Interrupted => eprintln!(),
            _ => eprintln!("{}", self.text()),
        }
        ExitCode::from(self.code())
    }

    /// What went wrong and what to do next.
    fn text(&self) -> String {
        let hint = self.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("error: {}{hint}", chain(self))
    }

    fn code(&self) -> u8 {
        match self {
            Failure::Cluster(error) => code(error),
            Failure::File { .. } | Failure::Format(..) | Failure::MissingProgram(..) => 1,
            Failure::Usage { .. } | Failure::Yaml { .. } => 2,
            Failure::Refused { .. } => 3,
            Failure::NobodyLeads { .. } => 4,
            Failure::NobodyToAsk(_) | Failure::Declined => 7,
            Failure::Interrupted => 130,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Failure::Cluster(error) => hint(error).map(Into::into),
            Failure::Usage { hint, .. } | Failure::Refused { hint, .. } => hint.clone(),
            Failure::NobodyLeads { hint, .. } | Failure::MissingProgram(_, hint) => Some((*hint).into()),
            Failure::NobodyToAsk(_) => Some("where you are sure: --yes".into()),
            Failure::Yaml { .. } => Some("mend it, or name another with --contexts FILE".into()),
            _ => None,
        }
    }
}

fn code(error: &Error) -> u8 {
    match (error, error.code()) {
        (Error::Unconfirmed { .. }, _) => 5,
        (_, Some(ErrorCode::Unauthenticated | ErrorCode::Forbidden)) => 6,
        (_, Some(ErrorCode::BadRequest)) => 2,
        (_, Some(ErrorCode::NoLeader | ErrorCode::Unavailable)) | (Error::Deadline { .. }, _) => 4,
        (Error::Address { .. } | Error::NoAddress | Error::Token, _) => 2,
        (Error::Refused { cause, .. }, None) if matches!(**cause, Cause::Request(_)) => 2,
        (Error::Refused { .. }, None) => 4,
        (Error::Refused { .. }, Some(_)) => 3,
        _ => 1,
    }
}

fn hint(error: &Error) -> Option<&'static str> {
    Some(match (error, error.code()) {
        (Error::Unconfirmed { .. }, _) => "see what became of it before you repeat it: qluster events; qluster status",
        (_, Some(ErrorCode::Unauthenticated)) => {
            "name a file with a token that the nodes accept: --token-file FILE, or `token-file` in the context"
        }
        (_, Some(ErrorCode::Forbidden)) => "changes need the token `admin`: --token-file FILE",
        (_, Some(ErrorCode::NoLeader)) => {
            "qluster status says which nodes do not answer or are not fit; where those that may have the newest \
             commits are gone for good: qluster switchover NODE --accept-data-loss"
        }
        (_, Some(ErrorCode::PreconditionFailed)) => "qluster status shows the nodes; try again when the reason is gone",
        (_, Some(ErrorCode::Unavailable)) => "the node's log says more; another node may answer: --address URL",
        (_, Some(ErrorCode::NotFound)) => "this node's version does not have that: are all nodes upgraded?",
        (Error::Address { .. }, _) => "an address has the form http://10.0.0.1:8080, or https:// with TLS",
        (Error::Deadline { cause, .. }, None) => unreached(cause),
        (Error::Refused { .. }, None) => "is this the address of a qluster-server's API? http or https?",
        _ => return None,
    })
}

/// What to do where there was no answer.
fn unreached(cause: &Cause) -> &'static str {
    let text = chain(cause);
    match cause {
        // TLS ends a connection with an alert, of which the library tells in words only.
        _ if text.contains("CertificateRequired") => {
            "the node asks for a certificate of yours: --cert-file FILE --key-file FILE"
        }
        Cause::Connect(_) if text.contains("certificate") => {
            "the node's certificate is not trusted: name the authority with --ca-file FILE"
        }
        Cause::Connect(_) => {
            "is qluster-server running there? Name the address of a node with --address URL, or a context with \
             --context NAME"
        }
        Cause::Lost(_) => "the node was stopped, or it speaks TLS: try https:// in the address",
        _ => "the node is slow or frozen; name others with --address URL, or wait longer with --timeout",
    }
}

/// An error with all its causes, in a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&reason) {
            text.push_str(&format!(": {reason}"));
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use qluster_client::model;

    use super::*;

    fn answer(code: ErrorCode) -> Box<Cause> {
        let error = model::Error { message: "why".into(), error_code: code, request_id: None, leader: None };
        Box::new(Cause::Answer { status: code.status(), error: Box::new(error) })
    }

    fn refused(code: ErrorCode) -> Error {
        Error::Refused { operation: "POST /config", address: "http://10.0.0.1:8080".into(), cause: answer(code) }
    }

    #[test]
    fn every_answer_has_its_exit_code() {
        for (error, expected) in [
            (ErrorCode::BadRequest, 2),
            (ErrorCode::Unauthenticated, 6),
            (ErrorCode::Forbidden, 6),
            (ErrorCode::Superseded, 3),
            (ErrorCode::PreconditionFailed, 3),
            (ErrorCode::NoLeader, 4),
            (ErrorCode::Unavailable, 4),
        ] {
            assert_eq!(code(&refused(error)), expected, "{error:?}");
        }
        let (operation, address) = ("POST /config", String::from("http://10.0.0.1:8080"));
        let cause = answer(ErrorCode::NoLeader);
        assert_eq!(code(&Error::Unconfirmed { operation, address: address.clone(), cause }), 5);
        let (within, cause) = (Duration::ZERO, Box::new(Cause::Timeout(Duration::ZERO)));
        assert_eq!(code(&Error::Deadline { operation, address: address.clone(), within, attempts: 1, cause }), 4);
        let cause = Box::new(Cause::Request("no body".into()));
        assert_eq!(code(&Error::Refused { operation, address, cause }), 2);
        assert_eq!(code(&Error::NoAddress), 2);
    }

    #[test]
    fn an_error_names_its_causes_once_and_what_to_do_next() {
        let text = Failure::Cluster(refused(ErrorCode::Forbidden)).text();
        assert_eq!(
            text,
            "error: POST /config was refused by http://10.0.0.1:8080: answered 403: why\n\
             hint: changes need the token `admin`: --token-file FILE"
        );
    }
}
