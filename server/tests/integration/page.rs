//! The status page in a real browser, before a real cluster: `apt-get install chromium chromium-driver postgresql-15` (or
//! newer) provides both. With QLUSTER_SCREENSHOTS, pictures of it are left in that directory.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::error::CmdError;
use fantoccini::wd::Capabilities;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use qluster_consensus::model::{Leader, NodeId};
use serde_json::{Value, json};

use crate::support::{
    Daemon, Ground, WAIT_DEADLINE, be_patient, free_port, holds, id_of, leader, leader_after, parted, signal, until,
};

/// For what starts a browser or draws, which is slow on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The window.
const WIDE: (u32, u32) = (1180, 1100);

/// Who looks at the page, and at what.
#[derive(Clone, Copy)]
enum Viewer {
    /// At a desk by day.
    Desk,
    /// At a phone in the dark.
    Phone,
}

/// The driver of the browser. Both end when this is dropped.
struct Driver {
    process: Child,
    port: u16,
    profile: tempfile::TempDir,
}

impl Driver {
    fn start() -> Self {
        let port = free_port();
        let profile = tempfile::tempdir().unwrap();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .env("HOME", profile.path())
            .stdout(Stdio::null())
            .spawn();
        let process = driver.expect("starting chromedriver: apt-get install chromium chromium-driver");
        Self { process, port, profile }
    }

    async fn browser(&self, viewer: Viewer) -> Client {
        let (name, scheme) = match viewer {
            Viewer::Desk => ("desk", 1),
            Viewer::Phone => ("phone", 0),
        };
        let arguments = [
            "--headless=new",
            // Chromium does not sandbox what root runs.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", self.profile.path().join(name).display()),
            &format!("--window-size={},{}", WIDE.0, WIDE.1),
            &format!("--blink-settings=preferredColorScheme={scheme}"),
        ];
        let mut options = json!({"args": arguments});
        if let Viewer::Phone = viewer {
            options["mobileEmulation"] = json!({"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 1}});
        }
        let wanted = json!({"goog:chromeOptions": options});
        let capabilities: Capabilities = wanted.as_object().unwrap().clone();
        let driver = format!("http://127.0.0.1:{}", self.port);
        until("there is a browser", LIMIT, async || {
            ClientBuilder::new(HttpConnector::new()).capabilities(capabilities.clone()).connect(&driver).await
        })
        .await
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It ends its browsers when it is asked to end.
        signal(self.process.id().try_into().unwrap(), rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

/// What a script says of the page.
async fn look(page: &Client, script: &str) -> Value {
    page.execute(&format!("return ({script})"), Vec::new()).await.unwrap()
}

/// Waits until a script says something true.
async fn until_true(page: &Client, what: &str, script: &str) {
    until(&format!("{what}: {script}"), LIMIT, async || {
        // One look for both, so that what is seen is what was judged.
        let seen = look(page, &format!("{{holds: ({script}), text: document.body?.innerText}}")).await;
        holds(seen["holds"] == json!(true), seen["text"].as_str().unwrap_or_default().to_owned())
    })
    .await;
}

/// Does something to an element, and does it again if the element was drawn again meanwhile.
async fn handle(what: &str, act: impl AsyncFnMut() -> Result<(), CmdError>) {
    until(what, LIMIT, act).await;
}

/// Sends a key to whatever has the focus.
async fn press(page: &Client, key: &str) {
    handle(key, async || page.active_element().await?.send_keys(key).await).await;
}

async fn click(page: &Client, css: &str) {
    handle(css, async || page.find(Locator::Css(css)).await?.click().await).await;
}

/// A picture of the page, for people to look at.
async fn shoot(page: &Client, name: &str) {
    if let Some(dir) = std::env::var_os("QLUSTER_SCREENSHOTS") {
        // What moves has arrived by then.
        tokio::time::sleep(Duration::from_millis(900)).await;
        std::fs::write(Path::new(&dir).join(format!("{name}.png")), page.screenshot().await.unwrap()).unwrap();
    }
}

fn card(id: NodeId) -> String {
    format!("document.querySelector('.card[data-node=\"{id}\"]')")
}

/// The picture shows that `leads` leads and that each of `follow` streams from it.
async fn until_shown(page: &Client, leads: NodeId, follow: &[NodeId]) {
    until_true(page, "the leader is marked", &format!("{}?.dataset.leads === 'true'", card(leads))).await;
    let marked = "document.querySelectorAll('.card[data-leads=\"true\"]').length === 1";
    until_true(page, "nobody else is", marked).await;
    for id in follow {
        let link = format!("document.querySelector('.link.streams[data-from=\"{leads}\"][data-to=\"{id}\"]') !== null");
        until_true(page, "who follows is linked", &link).await;
    }
    let text = format!("document.getElementById('headline').textContent === 'Node {leads} leads.'");
    until_true(page, "it is said", &text).await;
    until_true(
        page,
        "the table says it",
        &format!("document.querySelector('#nodes tr[data-node=\"{leads}\"]').textContent.includes('leads')"),
    )
    .await;
}

fn flags(ground: &Ground, name: &str) -> Vec<String> {
    let port = free_port().to_string();
    ["--db-data-dir", &ground.database(name), "--db-port", &port, "--watchdog", "off"].map(str::to_owned).to_vec()
}

fn with<'a>(flags: &'a [String], command: &[&'a str]) -> Vec<&'a str> {
    flags.iter().map(String::as_str).chain(command.iter().copied()).collect()
}

/// Three nodes with databases, of which two stream.
async fn three(ground: &Ground) -> ([Daemon; 3], [Vec<String>; 3]) {
    let flags = ["1", "2", "3"].map(|name| flags(ground, name));
    let one = ground.node("1", &with(&flags[0], &["bootstrap"]));
    one.until_get("/primary", 200).await;
    let url = one.url("");
    let two = ground.node("2", &with(&flags[1], &["join", &url]));
    two.until_get("/readiness?lag=1MB", 200).await;
    let three = ground.node("3", &with(&flags[2], &["join", &url]));
    three.until_get("/readiness?lag=1MB", 200).await;
    one.until("three voters", |map| map.nodes.values().filter(|node| node.votes()).count() == 3).await;
    ([one, two, three], flags)
}

#[tokio::test]
async fn the_picture_follows_a_failover_and_the_page_hands_over() {
    let ground = Ground::new();
    let (mut nodes, flags) = three(&ground).await;
    be_patient(&nodes.each_ref()).await;
    let driver = Driver::start();
    let page = driver.browser(Viewer::Desk).await;

    // Of a follower, which survives.
    let first = leader(&nodes.each_ref()).await;
    let (_, follow) = parted(&nodes.each_ref(), &first);
    let (seen, other) = (follow[0].port, follow[1].port);
    let map = follow[0].map().await;
    let ids = [id_of(&map, follow[0]), id_of(&map, follow[1])];
    page.goto(&follow[0].url("/")).await.unwrap();
    look(&page, "window.opened = 'once'").await;
    until_shown(&page, first.id, &ids).await;
    until_true(&page, "events are listed", "document.querySelectorAll('#events li').length > 3").await;
    until_true(
        &page,
        "settings are listed",
        "document.getElementById('settings').textContent.includes('node-timeout')",
    )
    .await;
    shoot(&page, "1-wide").await;

    // Only the leader takes changes: the page of another node links to the leader's.
    click(&page, &format!("[data-action=switch][data-node=\"{}\"]", ids[0])).await;
    let link = format!("document.querySelector('#ask-link a').href === 'http://127.0.0.1:{}/'", first.api_port);
    until_true(&page, "the leader's page is named", &link).await;
    page.find(Locator::Id("ask-yes")).await.unwrap().click().await.unwrap();

    // The leader dies. Nobody touches the page.
    let at = nodes.iter().position(|node| node.port == first.api_port.get()).unwrap();
    nodes[at].kill();
    until_true(&page, "the loss shows", &format!("{}.dataset.tone === 'bad'", card(first.id))).await;
    shoot(&page, "2-failover").await;
    let survivors: Vec<&Daemon> = nodes.iter().filter(|node| [seen, other].contains(&node.port)).collect();
    let second = leader_after(&survivors, &first).await;
    let third = *ids.iter().find(|id| **id != second.id).unwrap();
    until_shown(&page, second.id, &[third]).await;
    assert!(second.id != first.id && ids.contains(&second.id));
    let headline = look(&page, "document.getElementById('summary').dataset.tone").await;
    assert_eq!(headline, "warn", "one is missing");
    let listed =
        format!("document.getElementById('events').textContent.includes('Leader elected: node {}')", second.id);
    until_true(&page, "the event is listed", &listed).await;
    shoot(&page, "3-after").await;

    // It comes back, as a standby.
    nodes[at].start(&with(&flags[at], &["run"]));
    until_shown(&page, second.id, &[third, first.id]).await;
    until_true(&page, "all is well", "document.getElementById('detail').textContent.includes('All is well.')").await;
    assert_eq!(look(&page, "window.opened").await, "once", "it was loaded again");

    hand_over(&page, &nodes, &second, third).await;
    fits_a_phone_in_the_dark(&page, &driver, &nodes[at]).await;
    asks_nobody_else(&page).await;
    page.close().await.unwrap();
}

/// From the leader's page, with the keyboard alone.
async fn hand_over(page: &Client, nodes: &[Daemon; 3], from: &Leader, to: NodeId) {
    let (leads, _) = parted(&nodes.each_ref(), from);
    page.goto(&leads.url("/")).await.unwrap();
    let button = format!("[data-action=switch][data-node=\"{to}\"]");
    until_true(page, "there is a button", &format!("document.querySelector('{button}')?.disabled === false")).await;
    let own = format!("document.querySelector('[data-action=switch][data-node=\"{}\"]').disabled", from.id);
    assert_eq!(look(page, &own).await, true, "who leads cannot be made the leader");
    let [tab, enter, escape] = ["\u{e004}", "\u{e007}", "\u{e00c}"];
    let focused = format!("document.activeElement === document.querySelector('{button}')");
    until("Tab reaches the button", LIMIT, async || {
        let reached = look(page, &focused).await == json!(true);
        if !reached {
            press(page, tab).await;
        }
        holds(reached, "the focus is elsewhere")
    })
    .await;
    // Escape leaves it be. The table is drawn again under the question.
    press(page, enter).await;
    until_true(page, "it is asked", "document.getElementById('ask').open").await;
    shoot(page, "4-question").await;
    look(page, &format!("document.querySelector('{button}').closest('tbody').replaceChildren()")).await;
    until_true(page, "it is drawn again", &format!("document.querySelector('{button}')?.disabled === false")).await;
    press(page, escape).await;
    until_true(page, "Escape closes it", "!document.getElementById('ask').open").await;
    assert_eq!(leader(&nodes.each_ref()).await.id, from.id);
    // The button is focused again; Enter asks, Tab goes to the answer.
    until_true(page, "the button is focused again", &focused).await;
    press(page, enter).await;
    until_true(page, "it is asked again", "document.getElementById('ask').open").await;
    while look(page, "document.activeElement.id === 'ask-yes'").await != json!(true) {
        press(page, tab).await;
    }
    press(page, enter).await;
    let follow: Vec<NodeId> = leads.map().await.nodes.keys().copied().filter(|id| *id != to).collect();
    until_shown(page, to, &follow).await;
}

/// At a phone's width nothing is cut off; and dark is dark.
async fn fits_a_phone_in_the_dark(page: &Client, driver: &Driver, node: &Daemon) {
    let background = "getComputedStyle(document.body).backgroundColor";
    let phone = driver.browser(Viewer::Phone).await;
    phone.goto(&node.url("/")).await.unwrap();
    until_true(&phone, "it is drawn", "document.querySelectorAll('.link.streams').length === 2").await;
    assert_ne!(look(&phone, background).await, look(page, background).await);
    until_true(&phone, "it fits", "window.innerWidth === 390 && document.documentElement.scrollWidth === 390").await;
    let inside = "[...document.querySelectorAll('.card, #nodes button')].every((element) => \
                  element.getBoundingClientRect().right <= 390)";
    until_true(&phone, "the cards and buttons fit", inside).await;
    shoot(&phone, "5-phone").await;
    phone.close().await.unwrap();
}

/// Nothing comes from elsewhere, whatever has a name is named, and the browser has nothing to complain of.
async fn asks_nobody_else(page: &Client) {
    let foreign = "performance.getEntriesByType('resource').map((entry) => entry.name).filter((name) => !name.startsWith(location.origin))";
    assert_eq!(look(page, foreign).await, json!([]));
    let nameless = "[...document.querySelectorAll('button')].filter((button) => button.offsetParent && !button.textContent.trim()).length";
    assert_eq!(look(page, nameless).await, 0);
    let inserted = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.evil = 1'})) ?? window.evil ?? 'refused'";
    assert_eq!(look(page, inserted).await, "refused", "the policy lets scripts of others run");
}

/// A word on the page leads to its explanation, which this node serves without a token.
async fn leads_to_the_glossary(page: &Client) {
    assert_eq!(look(page, "document.querySelector('footer a[href=\"docs/glossary.html\"]') !== null").await, true);
    click(page, "#words a[href$='#fit']").await;
    until_true(page, "the word is explained", "document.querySelector('h2#fit')?.textContent.startsWith('Fit')").await;
    assert_eq!(look(page, "location.pathname + location.hash").await, "/docs/glossary.html#fit");
}

#[tokio::test]
async fn where_tokens_are_configured_the_page_asks_for_one_and_sends_a_wrong_one_but_once() {
    let ground = Ground::new();
    let read = "a-token-of-those-that-read-0123456789";
    let files = tempfile::tempdir().unwrap();
    let flags = [("admin", "a-token-of-those-that-change-0123456789"), ("read", read)].map(|(kind, token)| {
        let path = files.path().join(kind);
        std::fs::write(&path, token).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        [format!("--{kind}-token-file"), path.display().to_string()]
    });
    let node = ground.node("1", &with(&flags.concat(), &["bootstrap"]));
    node.until_get("/is-leader", 200).await;
    let driver = Driver::start();
    let page = driver.browser(Viewer::Desk).await;
    page.goto(&node.url("/")).await.unwrap();
    let asked = |text: &str| {
        format!(
            "document.getElementById('ask').open && document.getElementById('ask-text').textContent.includes('{text}')"
        )
    };
    let enter = async |token: &str| {
        page.find(Locator::Id("ask-token")).await.unwrap().send_keys(token).await.unwrap();
        page.find(Locator::Id("ask-yes")).await.unwrap().click().await.unwrap();
    };
    until_true(&page, "a token is asked for", &asked("This node asks for a token.")).await;
    shoot(&page, "6-token").await;
    enter("no-token-of-this-node").await;
    until_true(&page, "another one is", &asked("does not know that token")).await;
    let sent = "performance.getEntriesByType('resource').length";
    // Longer than the page waits between requests: it repeats two kinds, and each may send it once.
    let while_it_waits = Duration::from_secs(3);
    tokio::time::sleep(while_it_waits).await;
    let before = look(&page, sent).await;
    tokio::time::sleep(while_it_waits).await;
    assert_eq!(look(&page, sent).await, before, "the wrong one is sent again");
    enter(read).await;
    until_true(&page, "the cluster shows", "document.getElementById('headline').textContent === 'Node 1 leads.'").await;
    until_true(&page, "so do events", "document.querySelectorAll('#events li').length > 0").await;
    until_true(&page, "there is no trouble", "document.getElementById('trouble').hidden").await;
    leads_to_the_glossary(&page).await;
    page.close().await.unwrap();
}

#[tokio::test]
async fn the_page_has_its_policy_and_its_files_and_no_others() {
    let ground = Ground::new();
    let node = ground.node("stranger", &["run"]);
    node.until_get("/liveness", 200).await;
    let http = reqwest::Client::builder().no_proxy().timeout(WAIT_DEADLINE).build().unwrap();
    for (path, kind) in [("/", "text/html"), ("/page/page.js", "text/javascript"), ("/page/style.css", "text/css")] {
        let answer = http.get(node.url(path)).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(header("content-type").starts_with(kind), "{path}");
        assert!(header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
    }
    for path in ["/page/", "/page/index.html", "/page/..%2f..%2fetc%2fpasswd", "/page/%00"] {
        assert!(matches!(http.get(node.url(path)).send().await.unwrap().status().as_u16(), 400 | 404), "{path}");
    }
}
