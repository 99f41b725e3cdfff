//! The contexts file: the names of clusters, with their addresses and the files of their credentials.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use qluster_client::model::Duration;
use serde::{Deserialize, Serialize};

use crate::args::{Credentials, Global};
use crate::failure::Failure;

/// The content of the file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Contexts {
    /// The context that is used if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current_context: Option<String>,
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// A cluster: its addresses, its credentials and how long to try.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Context {
    /// Addresses of nodes. It is enough if one answers.
    pub(crate) addresses: Vec<String>,
    /// A path that is not absolute is relative to the directory of the contexts file. So are the three below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<Duration>,
}

/// The address of a node on this host with the default port.
const LOCAL_ADDRESS: &str = "http://127.0.0.1:8080";

/// The path of the file: the one that was given, or else the one by the XDG base directory specification.
pub(crate) fn path(global: &Global) -> Result<PathBuf, Failure> {
    let dir = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let config = || dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")));
    let default = || config().map(|dir| dir.join("qluster/contexts.yaml"));
    let lost = || Failure::usage("neither HOME nor XDG_CONFIG_HOME is set", "name the contexts file: --contexts FILE");
    global.contexts.clone().or_else(default).ok_or_else(lost)
}

impl Contexts {
    /// Reads the file. Without a file, there are no contexts.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(Failure::file(format!("read {}", path.display()), source)),
        };
        // A file of comments alone is no mapping. It has no contexts.
        let contexts: Option<Self> =
            serde_norway::from_str(&text).map_err(|source| Failure::Yaml { path: path.into(), source })?;
        Ok(contexts.unwrap_or_default())
    }

    /// Writes the whole file, or leaves it as it was.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_norway::to_string(self).map_err(|error| Failure::Format("YAML", error.to_string()))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || {
            std::fs::create_dir_all(dir)?;
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(text.as_bytes())?;
            file.persist(path).map_err(std::io::Error::from)
        };
        write().map(drop).map_err(|source| Failure::file(format!("write {}", path.display()), source))
    }

    /// The context with this name.
    pub(crate) fn get(&self, name: &str) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let names: Vec<_> = self.contexts.keys().map(String::as_str).collect();
            let hint = match names[..] {
                [] => "there are no contexts; to add one: qluster context set NAME --address URL".into(),
                _ => format!("the contexts are: {}", names.join(", ")),
            };
            Failure::usage(format!("there is no context `{name}`"), hint)
        })
    }
}

/// The cluster to ask, and the credentials for it.
///
/// The command line wins over `environment`, and `environment` wins over the file. With an address, the token of a
/// context is used only if the context is named as well. Credentials from the environment are for the cluster that the
/// environment names, and not for another one on the command line.
pub(crate) fn resolve(global: &Global, environment: impl Fn(&str) -> Option<String>) -> Result<Context, Failure> {
    let set = |name| environment(name).filter(|value| !value.is_empty());
    let typed = global.context.is_some() || !global.address.is_empty();
    let elsewhere = set("QLUSTER_ADDRESS").or_else(|| set("QLUSTER_CONTEXT")).is_some();
    let given = |context| {
        let mut context = given(global, context);
        if global.context.is_none() && !(typed && elsewhere) {
            let Credentials { token_file, ca_file, cert_file, key_file } = global.credentials.clone();
            for (name, typed, file) in [
                ("QLUSTER_TOKEN_FILE", token_file, &mut context.token_file),
                ("QLUSTER_CA_FILE", ca_file, &mut context.ca_file),
                ("QLUSTER_CERT_FILE", cert_file, &mut context.cert_file),
                ("QLUSTER_KEY_FILE", key_file, &mut context.key_file),
            ] {
                *file = typed.or_else(|| set(name).map(PathBuf::from)).or(file.take());
            }
        }
        context
    };
    let addresses = set("QLUSTER_ADDRESS").filter(|_| !typed);
    if let Some(addresses) = addresses {
        let addresses = addresses.split(',').map(|address| address.trim().to_owned()).collect();
        return Ok(given(Context { addresses, ..Context::default() }));
    }
    if global.context.is_none() && !global.address.is_empty() {
        return Ok(given(Context::default()));
    }
    let local = || Context { addresses: vec![LOCAL_ADDRESS.into()], ..Context::default() };
    let name = global.context.clone().or_else(|| set("QLUSTER_CONTEXT"));
    let path = match path(global) {
        // Without a home directory there is no contexts file.
        Err(_) if name.is_none() => return Ok(given(local())),
        path => path?,
    };
    let contexts = Contexts::load(&path)?;
    let context = match name.as_ref().or(contexts.current_context.as_ref()) {
        Some(name) => contexts.get(name)?.clone().beside(&path),
        None => local(),
    };
    Ok(given(context))
}

/// A context, with the options that were given instead of its own values.
pub(crate) fn given(global: &Global, mut context: Context) -> Context {
    if !global.address.is_empty() {
        context.addresses = global.address.clone();
    }
    let Credentials { token_file, ca_file, cert_file, key_file } = global.credentials.clone();
    context.token_file = token_file.or(context.token_file);
    context.ca_file = ca_file.or(context.ca_file);
    context.cert_file = cert_file.or(context.cert_file);
    context.key_file = key_file.or(context.key_file);
    context.timeout = global.timeout.or(context.timeout);
    context
}

impl Context {
    /// Makes the paths of its files independent of the current directory. `path` is the contexts file.
    fn beside(mut self, path: &Path) -> Self {
        let dir = path.parent().unwrap_or(Path::new(""));
        for file in [&mut self.token_file, &mut self.ca_file, &mut self.cert_file, &mut self.key_file] {
            *file = file.take().map(|file| dir.join(file));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    const FILE: &str = "
current-context: shop
contexts:
  shop:
    addresses: [https://10.0.0.1:8080, https://10.0.0.2:8080]
    token-file: shop.token
    timeout: 5s
  test:
    addresses: [http://10.0.1.1:8080]
";

    fn resolved(arguments: &[&str]) -> Result<Context, Failure> {
        resolved_in(&[], arguments)
    }

    fn resolved_in(environment: &[(&str, &str)], arguments: &[&str]) -> Result<Context, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("contexts.yaml");
        std::fs::write(&file, FILE).unwrap();
        let file = file.to_str().unwrap();
        let arguments = ["qluster", "--contexts", file].into_iter().chain(arguments.iter().copied()).chain(["leader"]);
        let set = |name: &str| environment.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        let context = resolve(&Args::parse_from(arguments).global, set);
        context.map(|mut context| {
            context.token_file = context.token_file.map(|file| file.strip_prefix(dir.path()).unwrap_or(&file).into());
            context
        })
    }

    #[test]
    fn the_current_context_is_used_if_none_is_named() {
        let context = resolved(&[]).unwrap();
        assert_eq!(context.addresses, ["https://10.0.0.1:8080", "https://10.0.0.2:8080"]);
        assert_eq!(context.token_file, Some("shop.token".into()));
        assert_eq!(context.timeout.unwrap().to_string(), "5s");
    }

    #[test]
    fn what_is_given_comes_first_and_no_token_goes_to_an_address_that_it_is_not_for() {
        assert_eq!(resolved(&["--context", "test"]).unwrap().addresses, ["http://10.0.1.1:8080"]);
        let alone = resolved(&["--address", "http://10.9.9.9:8080"]).unwrap();
        assert_eq!((alone.addresses, alone.token_file), (vec!["http://10.9.9.9:8080".into()], None));
        let both = resolved(&["--address", "https://10.0.0.3:8080", "--context", "shop", "--timeout", "1s"]).unwrap();
        assert_eq!(both.addresses, ["https://10.0.0.3:8080"]);
        assert_eq!((both.token_file, both.timeout), (Some("shop.token".into()), Some(Duration::from_millis(1000))));
    }

    #[test]
    fn what_is_typed_counts_more_than_the_environment_and_that_more_than_the_file() {
        let (address, context) =
            (("QLUSTER_ADDRESS", "http://10.5.5.5:8080,http://10.5.5.6:8080"), ("QLUSTER_CONTEXT", "test"));
        let first = |environment: &[_], arguments: &[_]| {
            let context = resolved_in(environment, arguments).unwrap();
            (context.addresses[0].clone(), context.token_file.is_some())
        };
        let shop = ("https://10.0.0.1:8080".into(), true);
        assert_eq!(first(&[address, context], &[]), ("http://10.5.5.5:8080".into(), false));
        assert_eq!(first(&[context], &[]), ("http://10.0.1.1:8080".into(), false));
        assert_eq!(first(&[address, context], &["--context", "shop"]), shop);
        assert_eq!(first(&[address], &["--address", "http://10.9.9.9:8080"]), ("http://10.9.9.9:8080".into(), false));
        assert_eq!(first(&[("QLUSTER_ADDRESS", "")], &[]), shop);
    }

    #[test]
    fn a_token_of_the_environment_is_for_the_cluster_of_the_environment() {
        let token = ("QLUSTER_TOKEN_FILE", "/env.token");
        let file = |environment: &[_], arguments: &[_]| {
            resolved_in(environment, arguments).unwrap().token_file.map(|file| file.display().to_string())
        };
        let env = Some("/env.token".to_owned());
        assert_eq!(file(&[token], &[]), env);
        assert_eq!(file(&[token, ("QLUSTER_ADDRESS", "http://10.5.5.5:8080")], &[]), env);
        assert_eq!(file(&[token], &["--address", "http://10.9.9.9:8080"]), env);
        assert_eq!(file(&[token], &["--token-file", "/typed.token"]), Some("/typed.token".into()));
        for elsewhere in [("QLUSTER_ADDRESS", "http://10.5.5.5:8080"), ("QLUSTER_CONTEXT", "shop")] {
            assert_eq!(file(&[token, elsewhere], &["--address", "http://10.9.9.9:8080"]), None);
        }
        assert_eq!(file(&[token], &["--context", "shop"]), Some("shop.token".into()));
        assert_eq!(file(&[token], &["--context", "test"]), None);
    }

    #[test]
    fn an_unknown_context_is_refused_with_those_that_there_are() {
        let Err(Failure::Usage { message, hint }) = resolved(&["--context", "shoop"]) else { panic!() };
        assert_eq!(message, "there is no context `shoop`");
        assert_eq!(hint.unwrap(), "the contexts are: shop, test");
    }

    #[test]
    fn without_a_file_the_node_of_this_host_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("none.yaml");
        let args = Args::parse_from(["qluster", "--contexts", file.to_str().unwrap(), "leader"]);
        assert_eq!(resolve(&args.global, |_| None).unwrap().addresses, [LOCAL_ADDRESS]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/contexts.yaml");
        let contexts: Contexts = serde_norway::from_str(FILE).unwrap();
        contexts.save(&file).unwrap();
        assert_eq!(Contexts::load(&file).unwrap(), contexts);
        std::fs::write(&file, "# nothing yet\n").unwrap();
        assert_eq!(Contexts::load(&file).unwrap(), Contexts::default());
        std::fs::write(&file, "current-contxt: shop\n").unwrap();
        assert!(matches!(Contexts::load(&file), Err(Failure::Yaml { .. })));
    }
}
