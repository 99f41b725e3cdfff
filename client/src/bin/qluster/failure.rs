//! Errors: their texts, hints and exit codes.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use qluster_client::model::ErrorCode;
use qluster_client::{Cause, Error};

/// A paragraph of the help.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    something failed on this machine, such as a file or a program
  2    the command line, the contexts file or a setting is wrong
  3    the cluster refused: its state, or that of a node, does not allow this; nothing was changed
  4    no node answered in time, or nobody leads
  5    the change was not confirmed and may still take effect; check before you repeat it
  6    a credential is missing, wrong, or does not allow this
  7    you did not confirm, or there was no terminal to ask at
  130  interrupted";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Cluster(#[from] Error),
    /// The command line or a file of the user is wrong.
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    /// The state of the cluster does not allow it. This was found before the cluster was asked.
    #[error("{message}")]
    Refused { message: String, hint: Option<String> },
    /// Nobody leads. This was found before the cluster was asked.
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
    #[error("cannot find the program `{0}`")]
    MissingProgram(&'static str, &'static str),
    #[error("cannot write the answer as {0}: {1}")]
    Format(&'static str, String),
    #[error("this needs confirmation, and standard input is not a terminal\n{0}")]
    NobodyToAsk(String),
    #[error("you did not confirm, so nothing was done")]
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

    /// Prints the error to standard error, and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            // The reader of the output has enough: `qluster events | head`.
            Failure::File { source, .. } if source.kind() == ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Failure::Interrupted => eprintln!(),
            _ => eprintln!("{}", self.text()),
        }
        ExitCode::from(self.code())
    }

    /// What went wrong, and what to do next.
    fn text(&self) -> String {
        let hint = self.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("error: {}{hint}", self.reason())
    }

    /// What went wrong, in a line. If a node refused, its reason comes first, and then who refused what.
    fn reason(&self) -> String {
        match self {
            Failure::Cluster(Error::Refused { operation, address, cause }) => match &**cause {
                Cause::Answer { status, error } => {
                    format!("{}\n({address} answered {status} to {operation})", error.message)
                }
                _ => chain(self),
            },
            _ => chain(self),
        }
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
            Failure::NobodyToAsk(_) => Some("if you are sure: --yes".into()),
            Failure::Yaml { .. } => Some("correct the file, or name another one: --contexts FILE".into()),
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
        (Error::Unconfirmed { .. }, _) => {
            "check whether it took effect before you repeat it: qluster events; qluster status"
        }
        (_, Some(ErrorCode::Unauthenticated)) => {
            "name a file with a token that the nodes accept: --token-file FILE, or `token-file` in the context"
        }
        (_, Some(ErrorCode::Forbidden)) => "changes need an `admin` token: --token-file FILE",
        (_, Some(ErrorCode::NoLeader)) => {
            "qluster status says which nodes do not answer or are not fit; if those that may have the newest commits \
             are gone for good: qluster switchover NODE --accept-data-loss"
        }
        (_, Some(ErrorCode::PreconditionFailed)) => "qluster status shows the nodes; try again when the reason is gone",
        (_, Some(ErrorCode::Unavailable)) => "the node's log says more; another node may answer: --address URL",
        (_, Some(ErrorCode::NotFound)) => "the software of this node may be too old: are all nodes upgraded?",
        (Error::Address { .. }, _) => "an address has the form http://10.0.0.1:8080, or https:// with TLS",
        (Error::Deadline { cause, .. }, None) => unreached(cause),
        (Error::Refused { .. }, None) => "is this the address of a qluster-server's API? Is it http or https?",
        _ => return None,
    })
}

/// What to do if there was no answer.
fn unreached(cause: &Cause) -> &'static str {
    let text = chain(cause);
    match cause {
        // The TLS library names the alert that ended the connection in its text only.
        _ if text.contains("CertificateRequired") => {
            "the node asks for your certificate: --cert-file FILE --key-file FILE"
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

/// An error and all its causes, in a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        // Some errors already contain the text of their cause.
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
            "error: why\n\
             (http://10.0.0.1:8080 answered 403 to POST /config)\n\
             hint: changes need an `admin` token: --token-file FILE"
        );
        let cause = Box::new(Cause::Request("no body".into()));
        let (operation, address) = ("POST /config", "http://10.0.0.1:8080".into());
        let text = Failure::Cluster(Error::Refused { operation, address, cause }).text();
        assert_eq!(text.matches("no body").count(), 1, "{text}");
    }
}
