//! `qluster-server`, with the switches that tests of faults need.

#[path = "../main.rs"]
mod server;

fn main() -> std::process::ExitCode {
    server::main()
}
