//! What a program that uses the client does not have to build.

#[test]
fn the_client_pulls_in_no_raft_no_server_and_no_code_generation() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--package", "qluster-client", "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{lib}", "--no-dedupe", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let names: std::collections::BTreeSet<&str> = std::str::from_utf8(&tree.stdout).unwrap().lines().collect();
    assert!(names.contains("reqwest"), "{names:?}");
    for forbidden in ["openraft", "redb", "dropshot", "qluster_server", "progenitor", "progenitor_impl", "typify"] {
        assert!(!names.contains(forbidden), "the client depends on {forbidden}");
    }
    // They are for the command line, and that is a feature.
    for forbidden in ["clap", "comfy_table", "crossterm", "serde_norway", "rustls"] {
        assert!(!names.contains(forbidden), "without its features the client depends on {forbidden}");
    }
}
