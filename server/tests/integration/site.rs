//! The documentation as a node serves it, and the commands of its reference.

use std::process::Command;

use qluster_server::site::{INDEX, Site};

use crate::support::Ground;

/// Text of a page as a reader copies it.
fn unescaped(html: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&amp;", "&")]
        .iter()
        .fold(html.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[tokio::test]
async fn a_node_serves_the_documentation_from_before_it_is_part_of_a_cluster() {
    let ground = Ground::new();
    let node = ground.node("1", &["run"]);
    node.until_get("/map", 412).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (name, text) in Site::get().unwrap().files() {
        let response = http.get(node.url(&format!("/docs/{name}"))).send().await.unwrap();
        assert_eq!(response.status(), 200, "{name}");
        assert_eq!(response.headers()["content-security-policy"], "default-src 'self'");
        assert_eq!(response.text().await.unwrap(), text, "{name}");
    }
    for path in ["/docs", "/docs/"] {
        let response = http.get(node.url(path)).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.url().path()), (200, &*format!("/docs/{INDEX}")));
    }
    for path in ["/docs/nothing.html", "/docs/..%2Fopenapi.yaml", "/docs/index.html/x"] {
        let response = http.get(node.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn every_command_of_the_reference_asks_what_it_says() {
    let ground = Ground::new();
    let node = ground.bootstrap().await;
    let (page, _) = Site::get().unwrap().file("api.html").unwrap();
    let page = unescaped(page);
    let commands: Vec<_> = page
        .split("<code>curl ")
        .skip(1)
        .map(|rest| format!("curl {}", rest.split("</code>").next().unwrap()))
        .collect();
    let operations = page.matches("<h3 id=\"get-").count()
        + ["head-", "options-", "post-", "patch-", "delete-"]
            .iter()
            .map(|verb| page.matches(&format!("<h3 id=\"{verb}")).count())
            .sum::<usize>();
    assert_eq!(commands.len(), operations);
    assert!(operations >= 15);
    // All but those that answer with text, or without a body.
    assert!(page.matches("An answer:").count() >= 14);
    for command in commands {
        // Its code after its body. A reader's shell, as plain as it gets.
        let shown = command.replacen("curl ", "curl --noproxy '*' -w '\\n%{http_code}' ", 1);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&shown).env("API", node.url(""));
        let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        let answer = String::from_utf8(output.stdout).unwrap();
        let (body, code) = answer.rsplit_once('\n').unwrap();
        // There is no node 2, nor a database. Anything else that is refused was written wrongly.
        assert!(["200", "412", "503", "531"].contains(&code), "{command}: {answer}");
        assert!(!body.is_empty(), "{command}: {answer}");
    }
}
