//! The command line against nodes that answer from a script: what it prints is held against the files in `golden/`.
//!
//! `QLUSTER_UPDATE=1 cargo test -p qluster-client --features cli --test integration cli::` writes those files; look at what changed.

mod nodes;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use nodes::{Nodes, World};

use crate::support::{WAIT_DEADLINE, holds, until};

// ---- what is printed ----

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("txt")
}

/// Holds what commands print, and how they end, against a file.
fn check(name: &str, world: World, commands: &[&[&str]]) {
    let nodes = Nodes::new(world);
    let mut text = String::new();
    for arguments in commands {
        let output = nodes.run(arguments);
        text.push_str(&format!("$ qluster {}\n", arguments.join(" ")));
        text.push_str(&nodes.masked(&String::from_utf8(output.stdout).unwrap()));
        text.push_str(&nodes.masked(&String::from_utf8(output.stderr).unwrap()));
        text.push_str(&format!("[exit code {}]\n\n", output.status.code().unwrap()));
    }
    let file = golden(name);
    if std::env::var_os("QLUSTER_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&file, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(text == expected, "not as in {}, which QLUSTER_UPDATE=1 writes:\n{text}", file.display());
}

const WELL: World = World { lost: false, leaderless: false, bare: false, old: false, token: None };

#[test]
fn the_status_tells_who_leads_and_why_a_node_is_not_fit() {
    check("status", WELL, &[&["status"], &["status", "--color", "always"]]);
    check("status-lost", World { lost: true, ..WELL }, &[&["status"]]);
    check(
        "status-leaderless",
        World { leaderless: true, lost: true, ..WELL },
        &[&["status"], &["switchover", "--timeout", "2s"]],
    );
    check("status-bare", World { bare: true, ..WELL }, &[&["status"], &["connect"]]);
    check("status-old", World { old: true, ..WELL }, &[&["status"]]);
}

#[test]
fn answers_are_printed_for_programs_too() {
    check(
        "formats",
        WELL,
        &[
            &["status", "-o", "json"],
            &["leader", "-o", "yaml"],
            &["map", "--json"],
            &["events", "-o", "json"],
            &["config", "get", "node-timeout", "-o", "yaml"],
        ],
    );
}

#[test]
fn reads_are_printed_as_tables() {
    check(
        "reads",
        WELL,
        &[
            &["leader"],
            &["map"],
            &["events"],
            &["events", "--kind", "leader-elected,node-added"],
            &["events", "--limit", "1"],
            &["config", "get"],
            &["config", "get", "node-timeout"],
            &["config", "get", "node-timeuot"],
            &["readonly"],
            &["db-config"],
            &["db-config", "port", "--node", "2"],
            &["db-config", "prot"],
            &["connect", "--print"],
            &["connect", "--print", "--node", "9"],
        ],
    );
}

#[test]
fn changes_say_what_they_did() {
    check(
        "changes",
        WELL,
        &[
            &["config", "set", "node-timeout=2s"],
            &["config", "set", "node-timeout=5"],
            &["config", "set", "node-timeuot=5s"],
            &["switchover", "--yes"],
            &["switchover", "3", "--yes"],
            &["switchover", "1", "--yes"],
            &["switchover", "9", "--yes"],
            &["node", "add", "127.0.0.1", "--role", "voter", "--api-port", "8084"],
            &["node", "enroll", "3"],
            &["node", "down", "3", "--yes"],
            &["node", "remove", "3", "--yes"],
        ],
    );
}

#[test]
fn a_node_is_enrolled_by_the_former_name_of_the_command_too() {
    let nodes = Nodes::new(WELL);
    for name in ["enroll", "upgrade"] {
        assert!(nodes.run(&["node", name, "3", "--db-port", "5443"]).status.success(), "{name}");
    }
    let sent = nodes.changes();
    assert!(sent.len() == 2 && sent[0].starts_with("PATCH /node/3") && sent[0] == sent[1], "{sent:?}");
    let help = String::from_utf8(nodes.run(&["node", "--help"]).stdout).unwrap();
    assert!(help.contains("enroll") && !help.contains("upgrade"), "{help}");
}

#[test]
fn what_hurts_is_asked_for_and_not_done_where_there_is_nobody_to_ask() {
    let commands: [&[&str]; 5] = [
        &["switchover"],
        &["switchover", "2", "--accept-data-loss"],
        &["node", "down", "1"],
        &["node", "remove", "3"],
        &["config", "set", "quorum-replication=false"],
    ];
    check("asks", WELL, &commands);
    let nodes = Nodes::new(WELL);
    for arguments in commands {
        assert_eq!(nodes.run(arguments).status.code(), Some(7), "{arguments:?}");
    }
    assert_eq!(nodes.changes(), [] as [&str; 0]);
    // With --yes it is done, at the node that it has to be asked of.
    for arguments in commands {
        let mut arguments = arguments.to_vec();
        arguments.push("--yes");
        let output = nodes.run(&arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(
        nodes.changes(),
        [
            "POST /leader?node=2",
            "POST /leader?accept-data-loss=true&node=2",
            "POST /node-down/1",
            "DELETE /node/3",
            "POST /config quorum-replication=false",
        ]
    );
}

#[test]
fn help_lists_the_commands_and_the_exit_codes() {
    check("help", WELL, &[&["--help"], &["switchover", "--help"], &["node", "--help"], &["swichover"]]);
}

// ---- how it is called ----

#[test]
fn settings_are_edited_in_the_user_s_editor() {
    let nodes = Nodes::new(WELL);
    let edit = |editor: &str, more: &[&str]| {
        let mut arguments = vec!["config", "edit"];
        arguments.extend(more);
        nodes.command(&arguments).env_remove("VISUAL").env("EDITOR", editor).output().unwrap()
    };
    let output = edit("sed -i 's/^node-timeout: 1s/node-timeout: 2s/'", &["--yes"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "node-timeout: 1s -> 2s\n");
    assert_eq!(nodes.changes(), ["POST /config node-timeout=\"2s\""]);
    // Unchanged, not agreed to, no settings, an editor that fails: nothing is sent.
    for (editor, more, code) in [
        ("true", &["--yes"][..], 0),
        ("sed -i 's/^node-timeout: 1s/node-timeout: 2s/'", &[], 7),
        ("sed -i 's/^node-timeout: 1s/node-timeuot: 2s/'", &["--yes"], 2),
        ("false", &["--yes"], 2),
    ] {
        let output = edit(editor, more);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    assert_eq!(nodes.changes().len(), 1);
}

#[test]
fn a_token_is_sent_from_its_file_and_a_refusal_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, token: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("{token}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (file("right", "# replaced today\n\nread\nold"), file("wrong", "raed"));
    let nodes = Nodes::new(World { token: Some("read"), ..WELL });
    for (arguments, code, said) in [
        (vec!["leader"], 6, "hint: name a file with a token"),
        (vec!["leader", "--token-file", &wrong], 6, "the token is wrong"),
        (vec!["leader", "--token-file", &right], 0, ""),
        (vec!["status", "--token-file", &right], 0, ""),
        (vec!["node", "down", "3", "--yes", "--token-file", &right], 6, "hint: changes need an `admin` token"),
        (vec!["leader", "--token-file", "/nowhere/token"], 1, "cannot read /nowhere/token"),
    ] {
        let output = nodes.run(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

#[test]
fn a_context_stands_for_addresses_and_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let (contexts, token) = (dir.path().join("contexts.yaml"), dir.path().join("token"));
    std::fs::write(&token, "read").unwrap();
    let nodes = Nodes::new(World { token: Some("read"), ..WELL });
    let run = |arguments: &[&str]| {
        let mut command = nodes.command(arguments);
        command.env_remove("QLUSTER_ADDRESS").env("QLUSTER_CONTEXTS", &contexts).current_dir(dir.path());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, text) = run(&["context", "set", "shop"]);
    assert!(code == 2 && text.contains("a new context needs the address"), "{text}");
    let address = format!("http://127.0.0.1:{}", nodes.ports[0]);
    // A file that is named from here is found from anywhere.
    assert_eq!(run(&["context", "set", "shop", "--address", &address, "--token-file", "token"]).0, 0);
    assert_eq!(run(&["context", "set", "test", "--address", "http://10.255.255.1:8080"]).0, 0);
    let (_, text) = run(&["context", "list"]);
    assert!(text.lines().any(|line| line.starts_with("*  shop") && line.contains(token.to_str().unwrap())), "{text}");
    assert_eq!(run(&["leader"]).0, 0);
    assert_eq!(run(&["context", "use", "test"]).0, 0);
    assert_eq!(run(&["leader", "--context", "shop"]).0, 0);
    // Its token is for its own addresses only.
    assert_eq!(run(&["leader", "--address", &address]).0, 6);
    assert_eq!(run(&["context", "remove", "test"]).0, 0);
    let (code, text) = run(&["leader", "--context", "test"]);
    assert!(code == 2 && text.contains("hint: the contexts are: shop"), "{text}");
}

#[test]
fn where_no_node_answers_it_says_what_to_try() {
    let nodes = Nodes::new(WELL);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = nodes.run(&["status", "--address", &format!("http://{gone}"), "--timeout", "1s"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{error}");
    assert!(
        error.contains("Connection refused") && error.contains("hint: is qluster-server running there?"),
        "{error}"
    );
    let leaderless = Nodes::new(World { leaderless: true, ..WELL });
    let output = leaderless.run(&["leader", "--timeout", "1s"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(4) && error.contains("no majority"), "{error}");
    assert!(error.contains("hint: qluster status says which nodes"), "{error}");
    for (address, code) in [("http://", 2), ("ftp://127.0.0.1", 2)] {
        assert_eq!(nodes.run(&["status", "--address", address]).status.code(), Some(code), "{address}");
    }
}

#[test]
fn an_authority_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, "no certificate\n").unwrap();
    let output = Nodes::new(WELL).run(&["leader", "--ca-file", file.to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && error.contains("holds no certificate"), "{error}");
}

#[tokio::test]
async fn a_watch_that_nobody_looks_at_prints_what_changed() {
    let nodes = Nodes::new(WELL);
    let mut watch = nodes.command(&["watch", "-o", "json", "--interval", "10ms"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let status: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(status["leader"], 1);
    // It looks again and again, and nothing changes.
    let looks = || nodes.seen.lock().unwrap().iter().filter(|(line, _)| line == "GET /status").count();
    until("it has looked again", WAIT_DEADLINE, async || {
        let looks = looks();
        holds(looks >= 12, looks)
    })
    .await;
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(lines.count(), 0);
}

#[test]
fn colour_is_for_terminals() {
    let nodes = Nodes::new(WELL);
    let coloured = |command: &mut Command| command.output().unwrap().stdout.contains(&0x1b);
    assert!(!coloured(&mut nodes.command(&["status"])));
    assert!(!coloured(&mut nodes.command(&["status", "--color", "never"])));
    assert!(coloured(&mut nodes.command(&["status", "--color", "always"])));
    // What is said outright counts more than the environment.
    assert!(coloured(nodes.command(&["status", "--color", "always"]).env("NO_COLOR", "1")));
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let nodes = Nodes::new(WELL);
    let mut child = nodes.command(&["db-config"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let nodes = Nodes::new(WELL);
    for shell in ["bash", "zsh", "fish"] {
        let output = nodes.run(&["completion", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        for command in ["status", "watch", "switchover", "db-config", "context"] {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(nodes.run(&["man", dir.path().to_str().unwrap()]).status.success());
    let page = std::fs::read_to_string(dir.path().join("qluster-switchover.1")).unwrap();
    assert!(page.contains("accept\\-data\\-loss"), "{page}");
    assert!(std::fs::read_to_string(dir.path().join("qluster.1")).unwrap().contains("Exit codes"));
    let output = nodes.run(&["man", "/nowhere"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
