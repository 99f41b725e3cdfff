//! The cluster's settings.

use std::path::Path;
use std::process::Command;

use qluster_client::model::{Config, ConfigUpdate, ErrorCode};
use serde_norway::{Mapping, Value};

use crate::args::ConfigCommand;
use crate::confirm::{again, confirm};
use crate::failure::{Failure, chain};
use crate::output::{Style, Tone, cell, plain, table};
use crate::session::Session;

pub(super) async fn run(session: &Session, command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Get { name } => get(session, &name).await,
        ConfigCommand::Set { settings } => set(session, &settings).await,
        ConfigCommand::Edit => edit(session).await,
    }
}

async fn get(session: &Session, names: &[String]) -> Result<(), Failure> {
    let config = session.cluster.config().await?;
    let mut settings = mapping(&config)?;
    if let Some(unknown) = names.iter().find(|name| !settings.contains_key(name.as_str())) {
        return Err(Failure::usage(format!("there is no setting `{unknown}`"), LISTED));
    }
    settings.retain(|name, _| names.is_empty() || names.iter().any(|wanted| name == wanted.as_str()));
    let mut defaults = mapping(&Config::default())?;
    if config.quorum_replication {
        // `quorum-replication` keeps this setting at a majority, so its value is the default.
        defaults.insert("replication-factor".into(), config.replication_factor.into());
    }
    session.out.show(&settings, |style| list(&settings, &defaults, style))
}

fn list(settings: &Mapping, defaults: &Mapping, style: Style) -> String {
    let row = |(name, value): (&Value, &Value)| {
        let default = defaults.get(name);
        let tone = if default == Some(value) { Tone::Plain } else { Tone::Caution };
        [plain(text(name)), cell(text(value), tone), plain(default.map(text).unwrap_or_default())]
    };
    table(style, ["SETTING", "VALUE", "DEFAULT"], settings.iter().map(row))
}

async fn set(session: &Session, settings: &[(String, String)]) -> Result<(), Failure> {
    let given = settings.iter().map(|(name, given)| (Value::from(name.as_str()), value(given)));
    let update = update(given.collect()).map_err(wrong)?;
    let before = session.cluster.config().await?;
    if let Some(warning) = weakens(&before, &update) {
        confirm(session.yes, warning).await?;
    }
    let after = session.cluster.update_config(&update).await?;
    show_changes(session, &before, &after)
}

/// Prints each setting that differs.
fn show_changes(session: &Session, before: &Config, after: &Config) -> Result<(), Failure> {
    let changed = changes(&mapping(before)?, &mapping(after)?);
    session.out.show(after, |_| match changed[..] {
        [] => "Nothing was changed: the settings have these values already.".into(),
        _ => changed.join("\n"),
    })
}

async fn edit(session: &Session) -> Result<(), Failure> {
    let before = session.cluster.config().await?;
    let old = mapping(&before)?;
    let mut text = format!("{HEAD}{}", yaml(&before)?);
    loop {
        text = in_editor(&text)?;
        let (update, changed) = match edited(&old, &text) {
            Ok(edited) => edited,
            Err(reason) => {
                eprintln!("error: {reason}");
                match again("Edit again?").await? {
                    true => continue,
                    false => return Err(wrong(reason)),
                }
            }
        };
        if changed.is_empty() {
            return session.out.show(&before, |_| "Nothing was changed.".into());
        }
        let warning = weakens(&before, &update).map(|warning| format!("\n{warning}")).unwrap_or_default();
        confirm(session.yes, &format!("{}{warning}", changed.join("\n"))).await?;
        if session.cluster.config().await? != before {
            return Err(Failure::refused("somebody else has changed the settings meanwhile", "edit them again"));
        }
        match session.cluster.update_config(&update).await {
            Ok(after) => return show_changes(session, &before, &after),
            Err(error) if error.code() == Some(ErrorCode::BadRequest) => {
                eprintln!("error: {}", chain(&error));
                if !again("Edit again?").await? {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A hint.
const LISTED: &str = "qluster config get lists the settings";

/// The first lines of the text in the editor.
const HEAD: &str = "# The settings of the cluster. Your changes take effect at once, on all nodes, after you have\n\
                    # confirmed them. A setting that you leave out stays as it is.\n";

/// The update that an edited text stands for, and a line for each setting that it changes.
fn edited(old: &Mapping, text: &str) -> Result<(ConfigUpdate, Vec<String>), String> {
    // A text of comments alone is no mapping.
    let new: Option<Mapping> =
        serde_norway::from_str(text).map_err(|error| format!("cannot read the settings: {error}"))?;
    let mut new = new.unwrap_or_default();
    // Only what differs: the cluster refuses `replication-factor` while `quorum-replication` sets it.
    new.retain(|name, value| old.get(name) != Some(value));
    let changed = changes(old, &new);
    Ok((update(new)?, changed))
}

fn in_editor(text: &str) -> Result<String, Failure> {
    let failed = |source| Failure::file("write a file for the editor", source);
    let file = tempfile::Builder::new().prefix("qluster-").suffix(".yaml").tempfile().map_err(failed)?;
    std::fs::write(file.path(), text).map_err(failed)?;
    let set = |name| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into());
    run_editor(&editor, file.path())?;
    // Opened again by its name, because some editors replace the file.
    std::fs::read_to_string(file.path()).map_err(|source| Failure::file("read the edited file", source))
}

/// Runs the editor by the shell, because the variable can have options: `EDITOR="code --wait"`. The editor has the
/// terminal until it ends, so the program waits for it.
fn run_editor(editor: &str, file: &Path) -> Result<(), Failure> {
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file).status();
    let status = status.map_err(|source| Failure::file("start sh", source))?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::usage(
            format!("the editor `{editor}` ended with {status}; nothing was changed"),
            "name another editor in EDITOR, or use qluster config set KEY=VALUE",
        )),
    }
}

/// A warning if the update makes commits less safe.
fn weakens(before: &Config, update: &ConfigUpdate) -> Option<&'static str> {
    let off = before.quorum_replication && update.quorum_replication == Some(false);
    let lower = update.replication_factor.is_some_and(|factor| factor < before.replication_factor);
    (off || lower).then_some(
        "Commits will be acknowledged before a majority of the nodes has them, so a failover may LOSE acknowledged \
         commits.",
    )
}

/// The update that consists of these settings; as an error, the first setting that is wrong, and why.
fn update(settings: Mapping) -> Result<ConfigUpdate, String> {
    let read = |settings| serde_norway::from_value::<ConfigUpdate>(Value::Mapping(settings));
    for (name, value) in settings.iter().filter(|(name, _)| name.is_string()) {
        let alone = [(name.clone(), value.clone())].into_iter().collect();
        read(alone).map_err(|error| format!("cannot set `{}` to `{}`: {error}", text(name), text(value)))?;
    }
    read(settings).map_err(|error| format!("cannot read the settings: {error}"))
}

fn wrong(reason: String) -> Failure {
    Failure::usage(reason, LISTED)
}

/// A typed value: a number, true, false, or text.
fn value(given: &str) -> Value {
    match serde_norway::from_str(given) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
        _ => given.into(),
    }
}

/// A line for each setting of `new` that differs from `old`.
fn changes(old: &Mapping, new: &Mapping) -> Vec<String> {
    let differs = |(name, value): &(&Value, &Value)| old.get(name) != Some(value);
    let line = |(name, value): (&Value, &Value)| {
        let before = old.get(name).map_or_else(|| "unset".into(), text);
        format!("{}: {before} -> {}", text(name), text(value))
    };
    new.iter().filter(differs).map(line).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_norway::to_string(other).unwrap_or_default().trim_end().to_owned(),
    }
}

/// The settings, in the order of the API.
fn mapping(config: &Config) -> Result<Mapping, Failure> {
    match serde_norway::to_value(config) {
        Ok(Value::Mapping(mapping)) => Ok(mapping),
        Ok(other) => Err(Failure::Format("YAML", format!("settings are a mapping, not {other:?}"))),
        Err(error) => Err(Failure::Format("YAML", error.to_string())),
    }
}

fn yaml(config: &Config) -> Result<String, Failure> {
    serde_norway::to_string(config).map_err(|error| Failure::Format("YAML", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old() -> Mapping {
        mapping(&Config::default().with_voters(3)).unwrap()
    }

    #[test]
    fn what_is_typed_becomes_what_the_setting_is() {
        for (given, expected) in [
            ("2s", Value::from("2s")),
            ("1m 30s", Value::from("1m 30s")),
            ("2", Value::from(2)),
            ("true", Value::from(true)),
            ("", Value::from("")),
            ("[1]", Value::from("[1]")),
        ] {
            assert_eq!(value(given), expected, "{given}");
        }
        let settings = [("node-timeout", "2s"), ("autoremove-enabled", "true"), ("autoremove-minimum", "5")];
        let settings = settings.map(|(name, given)| (Value::from(name), value(given)));
        let update = update(settings.into_iter().collect()).unwrap();
        assert_eq!(update.node_timeout.unwrap().to_string(), "2s");
        assert_eq!((update.autoremove_enabled, update.autoremove_minimum), (Some(true), Some(5)));
    }

    #[test]
    fn what_is_no_setting_is_refused_with_what_was_expected() {
        for (name, given, expected) in [
            ("node-timeuot", "1s", "unknown field `node-timeuot`"),
            ("node-timeout", "5", "expected a duration"),
            ("autoremove-enabled", "maybe", "expected a boolean"),
        ] {
            let error = update([(Value::from(name), value(given))].into_iter().collect()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn only_what_was_edited_is_sent_and_shown() {
        let text = format!("{HEAD}{}", yaml(&Config::default().with_voters(3)).unwrap());
        let (unchanged, changed) = edited(&old(), &text).unwrap();
        assert_eq!((unchanged, changed.len()), (ConfigUpdate::default(), 0));
        let (update, changed) = edited(&old(), &text.replace("node-timeout: 1s", "node-timeout: 2s")).unwrap();
        assert_eq!((update.node_timeout.map(|time| time.as_millis()), update.replication_factor), (Some(2000), None));
        assert_eq!(changed, ["node-timeout: 1s -> 2s"]);
        // What is left out stays.
        assert_eq!(edited(&old(), "# nothing\n").unwrap().0, ConfigUpdate::default());
        assert_eq!(edited(&old(), "autoremove-minimum: 7").unwrap().1, ["autoremove-minimum: 3 -> 7"]);
        for wrong in ["node-timeout", "node-timeout: [", "node-timeuot: 1s"] {
            assert!(edited(&old(), wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_makes_commits_less_safe_is_asked_for() {
        let before = Config::default().with_voters(3);
        for (json, asked) in [
            (r#"{"quorum-replication": false}"#, true),
            (r#"{"replication-factor": 1}"#, true),
            (r#"{"replication-factor": 3}"#, false),
            (r#"{"quorum-replication": true, "node-timeout": "9s"}"#, false),
        ] {
            assert_eq!(weakens(&before, &serde_json::from_str(json).unwrap()).is_some(), asked, "{json}");
        }
    }
}
