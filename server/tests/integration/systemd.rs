//! The daemon under a service manager: what it says on its socket, and how it exits.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use crate::support::{WAIT_DEADLINE, exited, free_port, signal};

/// A daemon without a database, and the manager's end of its socket.
struct Service {
    directory: tempfile::TempDir,
    socket: UnixDatagram,
    daemon: Option<Child>,
}

impl Service {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(WAIT_DEADLINE)).unwrap();
        Self { directory, socket, daemon: None }
    }

    fn start(&mut self, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qluster-server"));
        command.args(["--ip", "127.0.0.1", "--api-port", &free_port().to_string()]).args(arguments);
        command.arg("--data-dir").arg(self.directory.path().join("data"));
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify")).env("WATCHDOG_USEC", "300000");
        command.env("QLUSTER_CONFIG", "/dev/null").stderr(Stdio::null());
        self.daemon = Some(command.spawn().unwrap());
    }

    /// The next message.
    fn hear(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// The next message that is no sign of life, and how many of those came before.
    fn hear_news(&self) -> (usize, String) {
        let mut signs = 0;
        loop {
            match self.hear() {
                sign if sign == "WATCHDOG=1\n" => signs += 1,
                news => return (signs, news),
            }
        }
    }

    fn terminate(&self) {
        signal(self.daemon.as_ref().unwrap().id().try_into().unwrap(), rustix::process::Signal::TERM);
    }

    async fn exit_code(&mut self) -> Option<i32> {
        exited(self.daemon.as_mut().unwrap()).await.code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

#[tokio::test]
async fn a_daemon_says_that_it_is_ready_that_it_lives_and_that_it_stops() {
    let mut service = Service::new();
    service.start(&["bootstrap"]);
    let (_, ready) = service.hear_news();
    assert!(ready.starts_with("READY=1\nSTATUS=node 1 of cluster "), "{ready}");
    for _ in 0..5 {
        assert_eq!(service.hear(), "WATCHDOG=1\n");
    }
    service.terminate();
    assert_eq!(service.hear_news().1, "STOPPING=1\n");
    assert_eq!(service.exit_code().await, Some(0));
}

#[test]
fn a_node_without_a_cluster_is_ready_to_be_made_part_of_one() {
    let mut service = Service::new();
    service.start(&["run"]);
    let (_, ready) = service.hear_news();
    assert!(ready.starts_with("READY=1\nSTATUS=not part of a cluster yet"), "{ready}");
}

#[tokio::test]
async fn where_starting_again_does_not_help_the_exit_code_says_so() {
    let managed = tempfile::tempdir().unwrap();
    std::fs::write(managed.path().join("qluster.conf"), "").unwrap();
    let database = ["--db-data-dir", managed.path().to_str().unwrap()];
    for arguments in [
        // The settings make no sense.
        &["run", "--db-port", "5432"][..],
        // The store is missing beside a database of a cluster.
        &[&["run"], &database[..]].concat(),
    ] {
        let mut service = Service::new();
        service.start(arguments);
        assert_eq!(service.exit_code().await, Some(78), "{arguments:?}");
    }
}
