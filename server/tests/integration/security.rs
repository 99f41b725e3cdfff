//! Credentials of real daemons: tokens, the cluster's secret and TLS, as they are asked for, replaced and refused.

use std::path::{Path, PathBuf};

use openapiv3::{OpenAPI, Parameter};
use qluster_consensus::model::ClusterMap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use reqwest::{Certificate, Client, Identity, Method, StatusCode};

use crate::support::{Daemon, Ground, WAIT_DEADLINE, be_patient, free_port, holds, until};

const ADMIN: &str = "admin-0123456789abcdef0123456789abcdef";
const READ: &str = "read-0123456789abcdef0123456789abcdef";
const SECRET: &str = "secret-0123456789abcdef0123456789abcdef";
const NEW: &str = "new-0123456789abcdef0123456789abcdef";

/// Files of credentials, as an operator lays them out.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a file in its place in one step, readable by its owner alone.
    fn put(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::OpenOptionsExt;
        let temporary = self.path("temporary");
        let _ = std::fs::remove_file(&temporary);
        let options = std::fs::File::options().create_new(true).write(true).mode(0o600).clone();
        std::io::Write::write_all(&mut options.open(&temporary).unwrap(), text.as_bytes()).unwrap();
        std::fs::rename(&temporary, self.path(name)).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// An authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for a name or an address, and its key. It is of the year `year`, and the one after it.
    fn issue(&self, name: &str, year: i32) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(year, 1, 1), rcgen::date_time_ymd(year + 1, 12, 31));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn client(&self, identity: Option<&(String, String)>) -> Client {
        let mut builder = Client::builder().no_proxy().timeout(WAIT_DEADLINE).pool_max_idle_per_host(0);
        builder = builder.tls_certs_only([Certificate::from_pem(self.pem().as_bytes()).unwrap()]);
        if let Some((cert, key)) = identity {
            builder = builder.identity(Identity::from_pem(format!("{cert}{key}").as_bytes()).unwrap());
        }
        builder.build().unwrap()
    }
}

/// The year that it is, so that certificates of it are valid.
fn this_year() -> i32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    1970 + (since.as_secs() / 31_556_952) as i32
}

async fn status(http: &Client, method: &str, url: &str, token: Option<&str>) -> StatusCode {
    let mut request = http.request(method.to_uppercase().parse::<Method>().unwrap(), url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if method == "post" && url.ends_with("/config") {
        request = request.header("content-type", "application/json").body("{}");
    }
    let response = request.send().await.unwrap_or_else(|error| panic!("{method} {url}: {error:?}"));
    let status = response.status();
    if [401, 403, 429].contains(&status.as_u16()) {
        let error: qluster_consensus::model::Error = response.json().await.unwrap();
        assert_eq!(error.error_code.status(), status.as_u16());
        for secret in [ADMIN, READ, SECRET, NEW] {
            assert!(!error.message.contains(secret), "{error:?}");
        }
    }
    status
}

/// Waits until a request is answered with `expected`.
async fn until_answered(http: &Client, url: &str, token: &str, expected: u16) {
    until(&format!("{url} is {expected}"), WAIT_DEADLINE, async || {
        let got = http.get(url).bearer_auth(token).send().await.map(|response| response.status().as_u16());
        holds(matches!(got, Ok(status) if status == expected), got)
    })
    .await;
}

fn log(node: &Daemon) -> String {
    std::fs::read_to_string(node.dir.join("log")).unwrap()
}

async fn until_logged(node: &Daemon, text: &str) {
    until(&format!("the log says `{text}`"), WAIT_DEADLINE, async || {
        let log = log(node);
        holds(log.contains(text), log)
    })
    .await;
}

/// Waits until the node tells people of something: what its peers did is not in its log.
async fn until_told(http: &Client, url: &str, text: &str) {
    until(&format!("{url} tells `{text}`"), WAIT_DEADLINE, async || {
        let told = match http.get(url).bearer_auth(READ).send().await {
            Ok(answer) => answer.text().await.unwrap(),
            Err(error) => error.to_string(),
        };
        holds(told.contains(text), told)
    })
    .await;
}

/// How each operation is called, and what it takes, by the description.
fn operations(node: &Daemon) -> Vec<(String, String, Vec<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.yaml");
    let document: OpenAPI = serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let of_node = |name: &str| match name {
        // One that is not there, so that nothing changes.
        "node" => "77".to_owned(),
        "ip" => "127.0.0.1".into(),
        "role" => "witness".into(),
        name if name.ends_with("port") => "1".into(),
        name => panic!("what is a value for {name}?"),
    };
    let called = document.operations().map(|(path, method, operation)| {
        let mut query = Vec::new();
        for parameter in &operation.parameters {
            if let Some(Parameter::Query { parameter_data, .. }) = parameter.as_item()
                && parameter_data.required
            {
                query.push(format!("{0}={1}", parameter_data.name, of_node(&parameter_data.name)));
            }
        }
        let url = node.url(&format!("{}?{}", path.replace("{node}", "77"), query.join("&")));
        let taken = operation.security.iter().flatten().flat_map(|one| one.keys().cloned()).collect();
        (method.to_owned(), url.trim_end_matches('?').to_owned(), taken)
    });
    called.collect()
}

#[tokio::test]
async fn every_operation_takes_the_tokens_that_its_description_names() {
    let (ground, files) = (Ground::new(), Files::new());
    let (admin, read) = (files.put("admin", ADMIN), files.put("read", READ));
    let node = ground.node("1", &["--admin-token-file", &admin, "--read-token-file", &read, "bootstrap"]);
    node.until_get("/is-leader", 200).await;
    let http = Client::builder().no_proxy().timeout(WAIT_DEADLINE).build().unwrap();
    let operations = operations(&node);
    assert!(operations.len() >= 15);
    for (method, url, taken) in operations {
        let open = taken.is_empty();
        let takes = |kind: &str| open || taken.iter().any(|taken| taken == kind);
        assert!(takes("admin"), "{method} {url}");
        for token in [None, Some("wrong"), Some(&READ[1..])] {
            let got = status(&http, &method, &url, token).await.as_u16();
            // They come fast.
            let refused = got == 401 || got == 429 && token.is_some();
            assert_eq!(refused, !open, "{method} {url} with {token:?}: {got}");
        }
        for (token, taken, otherwise) in [(READ, takes("read"), 403), (ADMIN, true, 0)] {
            let got = until(&format!("{method} {url} is asked no more too often"), WAIT_DEADLINE, async || {
                let got = status(&http, &method, &url, Some(token)).await.as_u16();
                if got != 429 { Ok(got) } else { Err(got) }
            })
            .await;
            match taken {
                true => assert!(![401, 403, 404, 405].contains(&got), "{method} {url} with {token}: {got}"),
                false => assert_eq!(got, otherwise, "{method} {url} with {token}"),
            }
        }
    }
    for secret in [ADMIN, READ] {
        assert!(!log(&node).contains(secret));
    }
}

#[tokio::test]
async fn without_tokens_a_page_of_another_site_is_refused_and_the_nodes_own_is_not() {
    let ground = Ground::new();
    let node = ground.node("1", &["bootstrap"]);
    node.until_get("/is-leader", 200).await;
    let http = Client::builder().no_proxy().timeout(WAIT_DEADLINE).build().unwrap();
    let own = node.url("");
    for (method, path) in [(Method::POST, "/node-down/9"), (Method::GET, "/map")] {
        for (origin, refused) in [("https://example.org", true), ("null", true), (own.trim_end_matches('/'), false)] {
            let answer = http.request(method.clone(), node.url(path)).header("origin", origin).send().await.unwrap();
            assert_eq!(answer.status() == 403, refused, "{method} {path} from {origin}: {}", answer.status());
        }
    }
}

#[tokio::test]
async fn tokens_are_replaced_while_the_node_runs() {
    let (ground, files) = (Ground::new(), Files::new());
    let admin = files.put("admin", ADMIN);
    let node = ground.node("1", &["--admin-token-file", &admin, "bootstrap"]);
    node.until_get("/is-leader", 200).await;
    let http = Client::builder().no_proxy().timeout(WAIT_DEADLINE).build().unwrap();
    let map = node.url("/map");
    until_answered(&http, &map, ADMIN, 200).await;
    // Both count while there are both.
    files.put("admin", &format!("{NEW}\n{ADMIN}\n"));
    until_answered(&http, &map, NEW, 200).await;
    assert_eq!(status(&http, "get", &map, Some(ADMIN)).await, 200);
    // What is of no use changes nothing.
    files.put("admin", "short\n");
    until_logged(&node, "at least 32 characters").await;
    assert_eq!(status(&http, "get", &map, Some(ADMIN)).await, 200);
    files.put("admin", NEW);
    until_answered(&http, &map, ADMIN, 401).await;
    assert_eq!(status(&http, "get", &map, Some(NEW)).await, 200);
}

#[tokio::test]
async fn a_node_that_is_open_to_others_or_has_files_that_are_does_not_start() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let exposed = files.put("exposed", SECRET);
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644)).unwrap();
    for (ip, argument, file, reason) in [
        ("10.255.255.1", "--peer-secret-file", "/x", "there is no admin-token-file"),
        ("127.0.0.1", "--peer-secret-file", &exposed, "may be read or changed by others (mode 644)"),
        ("127.0.0.1", "--admin-token-file", "/nowhere/token", "cannot read /nowhere/token"),
    ] {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_qluster-server"));
        command.args(["--ip", ip, "--api-port", &free_port().to_string(), argument, file]);
        command.arg("--data-dir").arg(files.path("data")).arg("bootstrap").kill_on_drop(true);
        let output = tokio::time::timeout(WAIT_DEADLINE, command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason) && !said.contains(SECRET), "{said}");
    }
}

#[tokio::test]
async fn nodes_know_each_other_by_the_secret_which_is_replaced_while_they_run() {
    let (ground, files) = (Ground::new(), Files::new());
    let secrets = ["1", "2", "3"].map(|name| files.put(name, SECRET));
    let one = ground.node("1", &["--peer-secret-file", &secrets[0], "bootstrap"]);
    one.until_get("/is-leader", 200).await;
    be_patient(&[&one]).await;
    let url = one.url("");
    let two = ground.node("2", &["--peer-secret-file", &secrets[1], "join", &url]);
    let three = ground.node("3", &["--peer-secret-file", &secrets[2], "join", &url]);
    let voters = |map: &ClusterMap| map.nodes.values().filter(|node| node.votes()).count() == 3;
    for node in [&one, &two, &three] {
        node.until("three voters", voters).await;
    }
    // Nodes that have the new one already, those that have both, and those that have the old one only, talk.
    files.put("1", &format!("{SECRET}\n{NEW}"));
    files.put("2", &format!("{NEW}\n{SECRET}"));
    for node in [&one, &two] {
        until_logged(node, "credentials have changed").await;
    }
    files.put("3", NEW);
    until_logged(&three, "credentials have changed").await;
    let mut three = three;
    three.terminate().await;
    three.start(&["--peer-secret-file", &secrets[2], "run"]);
    three.until("three voters", voters).await;
    let index = one.map().await.index;
    one.configure(serde_json::json!({"autoremove-minimum": 5})).await.ok::<serde_json::Value>();
    three.until("the change", |map| map.index > index).await;

    // A node with another secret is no part of it, and both sides say so.
    let stranger = files.put("stranger", "another-0123456789abcdef0123456789abcdef");
    let four = ground.node("4", &["--peer-secret-file", &stranger, "join", &url]);
    let http = Client::builder().no_proxy().timeout(WAIT_DEADLINE).build().unwrap();
    until_told(&http, &one.url("/rpc"), "refuses this node: it does not know the secret of this node's cluster").await;
    until_told(&http, &four.url("/rpc"), "refused a connection from 127.0.0.1").await;
    assert!(four.get("/leader").await.status != 200);
    for node in [&one, &two, &three, &four] {
        assert!(!log(node).contains(SECRET) && !log(node).contains(NEW));
    }
}

/// The flags of a node with all that there is, from files that begin with its name.
fn flags(files: &Files, node: &str, authority: &Authority) -> Vec<String> {
    let (cert, key) = authority.issue("127.0.0.1", this_year());
    let given = [
        ("--peer-secret-file", files.put("secret", SECRET)),
        ("--admin-token-file", files.put("admin", ADMIN)),
        ("--read-token-file", files.put("read", READ)),
        ("--tls-cert", files.put(&format!("{node}.pem"), &cert)),
        ("--tls-key", files.put(&format!("{node}.key"), &key)),
        ("--tls-ca", files.put(&format!("{node}.ca"), &authority.pem())),
        ("--tls-client-ca", files.put(&format!("{node}.clients"), &authority.pem())),
    ];
    given.into_iter().flat_map(|(flag, file)| [flag.to_owned(), file]).collect()
}

fn https(node: &Daemon, path: &str) -> String {
    node.url(path).replace("http://", "https://")
}

fn with<'a>(flags: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    flags.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[tokio::test]
async fn nodes_and_clients_speak_tls_with_certificates_that_are_replaced_while_they_run() {
    let (ground, files) = (Ground::new(), Files::new());
    let (authority, other) = (Authority::new("the one"), Authority::new("the other"));
    let arguments = ["1", "2"].map(|node| flags(&files, node, &authority));
    let one = ground.node("1", &with(&arguments[0], &["bootstrap"]));
    let identity = authority.issue("client", this_year());
    let http = authority.client(Some(&identity));
    until_answered(&http, &https(&one, "/is-leader"), READ, 200).await;
    let url = https(&one, "");
    let mut two = ground.node("2", &with(&arguments[1], &["join", &url]));
    let voters = async |node: &Daemon, wanted: usize, http: &Client| {
        until(&format!("{wanted} voters and a leader"), WAIT_DEADLINE, async || {
            let answer = http.get(https(node, "/map")).bearer_auth(READ).send().await;
            let answer = answer.and_then(|answer| answer.error_for_status()).map_err(|error| error.to_string())?;
            let map = answer.json::<ClusterMap>().await.unwrap();
            let voters = map.nodes.values().filter(|node| node.votes()).count();
            holds(voters == wanted && map.leader.is_some(), format!("{map:?}"))
        })
        .await;
    };
    voters(&two, 2, &http).await;
    assert_eq!(status(&http, "get", &https(&one, "/map"), None).await, 401);

    // Who has no certificate, or one of another authority, or trusts another one, or speaks no TLS.
    let stranger = other.issue("client", this_year());
    let expired = authority.issue("client", this_year() - 5);
    for client in [
        authority.client(None),
        authority.client(Some(&stranger)),
        authority.client(Some(&expired)),
        other.client(Some(&identity)),
    ] {
        assert!(client.get(https(&one, "/is-leader")).send().await.is_err());
    }
    assert!(http.get(one.url("/is-leader")).send().await.is_err());

    // A certificate without its key is of no use. With it, and once the others know its authority, it is.
    let (cert, key) = other.issue("127.0.0.1", this_year());
    files.put("1.pem", &cert);
    until_logged(&one, "TLS cannot be set up").await;
    assert_eq!(status(&http, "get", &https(&one, "/map"), Some(READ)).await, 200);
    for name in ["1.ca", "2.ca", "1.clients", "2.clients"] {
        files.put(name, &(authority.pem() + &other.pem()));
    }
    files.put("1.key", &key);
    until_answered(&other.client(Some(&stranger)), &https(&one, "/map"), READ, 200).await;
    two.terminate().await;
    two.start(&with(&arguments[1], &["run"]));
    voters(&two, 2, &http).await;

    // If a certificate has expired, its own node says so, and the others do not accept it.
    let (cert, key) = other.issue("127.0.0.1", this_year() - 5);
    files.put("1.key", &key);
    files.put("1.pem", &cert);
    until_logged(&one, "other nodes will refuse this node's certificate").await;
    assert!(other.client(Some(&stranger)).get(https(&one, "/is-leader")).send().await.is_err());
    two.terminate().await;
    two.start(&with(&arguments[1], &["run"]));
    until_told(&http, &https(&two, "/rpc"), "is not trusted: TLS could not be agreed on").await;
    for node in [&one, &two] {
        assert!(![ADMIN, READ, SECRET].iter().any(|secret| log(node).contains(secret)));
    }
}
