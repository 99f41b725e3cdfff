//! A network for the nodes: one namespace for each node and one for the clients, joined by a hub that can drop packets.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::process;

/// The address of the clients.
pub(crate) const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
/// The address of the hub, to which nodes and clients send all packets for others.
const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);
/// The name of each link in the namespace of a node or of the clients.
const LINK: &str = "eth0";

/// A slow link: if the kernel has netem, packets are delayed and some are lost. If it has only a limit of the rate,
/// packets are lost that do not fit into its small buffer.
const NETEM: &str = "netem delay 60ms 30ms loss 3%";
const LIMITED: &str = "tbf rate 400kbit burst 4kb limit 12kb";

/// The address of a node.
pub(crate) fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(node + 1).unwrap_or(u8::MAX))
}

/// What this machine or this user lacks for such a network. None if nothing is missing.
pub(crate) fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces and file systems of the nodes' own take root");
    }
    let there = |program, arg| {
        let mut command = Command::new(program);
        command.arg(arg);
        crate::cargo::succeeds(command)
    };
    match there("ip", "-V") {
        false => Some("the program `ip` is not there (package iproute2)"),
        true => None,
    }
}

/// The namespaces. When this is dropped, they are removed and processes that still run in them are killed.
pub(crate) struct Namespaces {
    prefix: String,
    ends: Vec<(String, Ipv4Addr)>,
}

impl Namespaces {
    /// Makes namespaces for this many nodes. None if the kernel, or a container around this, does not permit them.
    pub(crate) fn create(prefix: &str, nodes: usize) -> Result<Option<Self>> {
        let nodes = (0..nodes).map(|node| (name(prefix, node), address(node)));
        let ends = nodes.chain([(format!("{prefix}-clients"), CLIENTS)]).collect();
        let this = Self { prefix: prefix.to_owned(), ends };
        if ip(&format!("netns add {}", this.hub())).is_err() {
            return Ok(None);
        }
        this.connect()?;
        Ok(Some(this))
    }

    fn hub(&self) -> String {
        hub(&self.prefix)
    }

    fn connect(&self) -> Result<()> {
        let hub = self.hub();
        ip(&format!("-n {hub} link set lo up"))?;
        ip(&format!("-n {hub} address add {HUB}/32 dev lo"))?;
        let mut forward = Command::new("ip");
        forward.args(["netns", "exec", &hub, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]);
        run(forward)?;
        for (number, (end, address)) in self.ends.iter().enumerate() {
            let port = port(number);
            ip(&format!("netns add {end}"))?;
            ip(&format!("link add {port} netns {hub} type veth peer name {LINK} netns {end}"))?;
            for command in [
                "link set lo up".to_owned(),
                format!("address add {address}/32 dev {LINK}"),
                format!("link set {LINK} up"),
                format!("route add {HUB} dev {LINK}"),
                format!("route add default via {HUB} src {address}"),
            ] {
                ip(&format!("-n {end} {command}"))?;
            }
            ip(&format!("-n {hub} link set {port} up"))?;
            ip(&format!("-n {hub} route add {address} dev {port}"))?;
        }
        Ok(())
    }

    /// A command that runs a program in the namespace of the clients.
    pub(crate) fn among_clients(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-clients", self.prefix)]).arg(program);
        command
    }

    /// Kills the processes that still run there, and returns them.
    pub(crate) fn end(&self) -> Vec<u32> {
        let of = |end: &str| {
            let mut command = Command::new("ip");
            command.args(["netns", "pids", end]).stderr(Stdio::null());
            let pids = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            pids.unwrap_or_default().lines().filter_map(|pid| pid.trim().parse().ok()).collect::<Vec<u32>>()
        };
        let pids: Vec<u32> = self.ends.iter().flat_map(|(end, _)| of(end)).collect();
        // A process that was killed a moment ago may take a little longer to be gone.
        let left = process::wait_dead(pids, Duration::from_secs(1));
        left.iter().for_each(|&pid| process::signal(pid, Signal::KILL));
        left
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.end();
        for name in self.ends.iter().map(|(name, _)| name).chain([&self.hub()]) {
            if let Err(error) = ip(&format!("netns delete {name}")) {
                // Not by `eprintln!`, which may panic: this also runs in a panic.
                let _ = writeln!(std::io::stderr(), "{error:#}");
            }
        }
    }
}

/// The network, for the code that puts faults into it.
pub(crate) struct Network {
    prefix: String,
    /// How many faults want each path cut, because the kernel takes a rule only once.
    cuts: Mutex<BTreeMap<(Ipv4Addr, Ipv4Addr), u32>>,
}

impl Network {
    pub(crate) fn attach(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), cuts: Mutex::default() }
    }

    /// The words that run a command in the namespace of a node.
    pub(crate) fn launcher(&self, node: usize) -> Vec<String> {
        ["ip", "netns", "exec", &name(&self.prefix, node)].map(str::to_owned).to_vec()
    }

    /// Drops all packets from one address to another, silently.
    pub(crate) fn cut(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = cuts.entry((from, to)).or_default();
        if *count == 0 {
            self.rule("add", from, to)?;
        }
        *count += 1;
        Ok(())
    }

    /// Ends a cut.
    pub(crate) fn mend(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        match cuts.get_mut(&(from, to)) {
            Some(1) => {
                cuts.remove(&(from, to));
                self.rule("delete", from, to)
            }
            Some(count) => {
                *count -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn rule(&self, action: &str, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
        ip(&format!("-n {} rule {action} from {from} to {to} blackhole", hub(&self.prefix)))
    }

    /// Makes the link of a node slow in both directions.
    pub(crate) fn slow(&self, node: usize) -> Result<()> {
        for (namespace, link) in [(hub(&self.prefix), port(node)), (name(&self.prefix, node), LINK.to_owned())] {
            let add = |discipline| tc(&format!("-n {namespace} qdisc add dev {link} root {discipline}"));
            add(NETEM).or_else(|_| add(LIMITED))?;
        }
        Ok(())
    }

    /// Makes it normal again.
    pub(crate) fn quicken(&self, node: usize) -> Result<()> {
        tc(&format!("-n {} qdisc delete dev {} root", hub(&self.prefix), port(node)))?;
        tc(&format!("-n {} qdisc delete dev {LINK} root", name(&self.prefix, node)))
    }
}

fn hub(prefix: &str) -> String {
    format!("{prefix}-hub")
}

fn name(prefix: &str, node: usize) -> String {
    format!("{prefix}-{}", node + 1)
}

/// The name of a link at the hub. Nodes come first, so that it follows from the index of a node.
fn port(end: usize) -> String {
    format!("port{}", end + 1)
}

fn ip(args: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(args.split(' '));
    run(command)
}

fn tc(args: &str) -> Result<()> {
    let mut command = Command::new("tc");
    command.args(args.split(' '));
    run(command)
}

/// Runs a command that prints something only if it fails.
fn run(mut command: Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
