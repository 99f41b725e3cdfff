//! Files that a test writes or compares, one test for each.

use anyhow::{Context, Result};

use crate::cargo::{FEATURES, run, workspace};

/// If this variable is set, those tests write.
const UPDATE: &str = "QLUSTER_UPDATE";

/// `openapi.yaml`, from the server's API trait.
pub(crate) fn openapi(check: bool) -> Result<()> {
    test("openapi", check).context("openapi.yaml differs from the server's code: run `cargo xtask openapi`")
}

/// The client's generated code, from `openapi.yaml`.
pub(crate) fn client(check: bool) -> Result<()> {
    test("generated", check).context("the generated client differs from openapi.yaml: run `cargo xtask client`")
}

fn test(name: &str, check: bool) -> Result<()> {
    // In the whole workspace there is one test of that name, and dependencies have the same features as for all tests.
    let mut command = workspace(&["test"], FEATURES)?;
    command.args(["--test", name]);
    if check {
        command.env_remove(UPDATE);
    } else {
        command.env(UPDATE, "1");
    }
    run(command)
}
