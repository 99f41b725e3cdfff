//! The commands for the contexts file.

use std::path::PathBuf;

use qluster_client::ClusterClient;

use crate::args::{ContextCommand, Credentials, Global};
use crate::contexts::{Context, Contexts, given, path};
use crate::failure::Failure;
use crate::output::{Output, Style, Tone, cell, optional, plain, table};

pub(super) fn run(command: ContextCommand, global: &Global, out: Output) -> Result<(), Failure> {
    let path = path(global)?;
    let mut contexts = Contexts::load(&path)?;
    let said = match command {
        ContextCommand::List => return out.show(&contexts, |style| list(&contexts, style)),
        ContextCommand::Use { name } => {
            contexts.get(&name)?;
            contexts.current_context = Some(name.clone());
            format!("{name} is the current context.")
        }
        ContextCommand::Set { name } => {
            let context = changed(contexts.contexts.get(&name).cloned(), global)?;
            contexts.contexts.insert(name.clone(), context);
            let current = contexts.current_context.get_or_insert_with(|| name.clone());
            let current = if *current == name { "the current context" } else { "a context" };
            format!("{name} is {current} in {}.", path.display())
        }
        ContextCommand::Remove { name } => {
            contexts.get(&name)?;
            contexts.contexts.remove(&name);
            contexts.current_context.take_if(|current| *current == name);
            format!("{name} was removed. The files that it names are still there.")
        }
    };
    contexts.save(&path)?;
    out.show(&contexts, |_| said)
}

/// The context `before`, changed by the options that were given.
fn changed(before: Option<Context>, global: &Global) -> Result<Context, Failure> {
    if before.is_none() && global.address.is_empty() {
        return Err(Failure::usage(
            "a new context needs the address of a node",
            "qluster context set NAME --address http://10.0.0.1:8080,http://10.0.0.2:8080",
        ));
    }
    let mut context = given(global, before.unwrap_or_default());
    // A wrong address is found now, and not when the cluster is in trouble.
    ClusterClient::new(&context.addresses)?;
    let Credentials { token_file, ca_file, cert_file, key_file } = &global.credentials;
    for (given, file) in [
        (token_file, &mut context.token_file),
        (ca_file, &mut context.ca_file),
        (cert_file, &mut context.cert_file),
        (key_file, &mut context.key_file),
    ] {
        // A path on the command line is relative to this directory; one in the file is relative to the file.
        if let Some(given) = given {
            let failed = |source| Failure::file(format!("find {}", given.display()), source);
            *file = Some(std::path::absolute(given).map_err(failed)?);
        }
    }
    Ok(context)
}

fn list(contexts: &Contexts, style: Style) -> String {
    if contexts.contexts.is_empty() {
        return "There are no contexts. To add one: qluster context set NAME --address URL".into();
    }
    let row = |(name, context): (&String, &Context)| {
        let current = contexts.current_context.as_ref() == Some(name);
        let file = |file: &Option<PathBuf>| optional(file.as_ref().map(|file| file.display().to_string()));
        [
            if current { cell("*", Tone::Good) } else { plain("") },
            plain(name),
            plain(context.addresses.join(" ")),
            file(&context.token_file),
            file(&context.ca_file),
        ]
    };
    table(style, ["", "CONTEXT", "ADDRESSES", "TOKEN FILE", "CA FILE"], contexts.contexts.iter().map(row))
}
