//! The frame of each page: its head, the list of all pages, the search.

use std::fmt::Write;

use super::Page;
use super::markdown::Rendered;

/// Text escaped for HTML, also in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            char => out.push(char),
        }
    }
    out
}

/// The page at `at`, with its frame.
pub(super) fn frame(pages: &[Page], at: usize, page: &Rendered) -> String {
    let title = escaped(&page.title);
    let version = env!("CARGO_PKG_VERSION");
    let menu = menu(pages, at);
    let contents = contents(page);
    let steps = steps(pages, at);
    let body = &page.html;
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · qluster</title>
<link rel="stylesheet" href="style.css">
<script src="script.js" defer></script>
</head>
<body>
<a class="skip" href="#main">Skip to the text</a>
<header>
<a class="name" href="index.html">qluster</a> <span class="version">{version}</span>
<search><input type="search" placeholder="Search" aria-label="Search the documentation" autocomplete="off"></search>
</header>
<div class="results" role="region" aria-label="Search results" aria-live="polite" hidden></div>
<div class="columns">
<details class="menu" open><summary>Pages</summary>
<nav aria-label="Pages">{menu}</nav>
</details>
<main id="main">
{body}
{steps}
</main>
{contents}
</div>
</body>
</html>
"##
    )
}

/// All pages by their groups.
fn menu(pages: &[Page], at: usize) -> String {
    let mut out = String::new();
    let mut group = "";
    for (index, page) in pages.iter().enumerate() {
        // Writing to a string does not fail.
        if page.group != group {
            let ends = if group.is_empty() { "" } else { "</ul>" };
            let _ = write!(out, "{ends}<h2>{}</h2><ul>", escaped(page.group));
            group = page.group;
        }
        let current = if index == at { " aria-current=\"page\"" } else { "" };
        let _ = write!(out, "<li><a href=\"{}\"{current}>{}</a></li>", page.file, escaped(&page.rendered.title));
    }
    out.push_str("</ul>");
    out
}

/// The contents of this page.
fn contents(page: &Rendered) -> String {
    let inner: Vec<_> = page.sections.iter().filter(|section| section.level == 2).collect();
    if inner.len() < 2 {
        return String::new();
    }
    let items: String = inner
        .iter()
        .map(|section| format!("<li><a href=\"#{}\">{}</a></li>", section.id, escaped(&section.heading)))
        .collect();
    format!("<nav class=\"contents\" aria-label=\"On this page\"><h2>On this page</h2><ul>{items}</ul></nav>")
}

/// The pages before and after.
fn steps(pages: &[Page], at: usize) -> String {
    let link = |index: Option<usize>, class: &str| {
        let page = index.and_then(|index| pages.get(index));
        page.map_or(String::new(), |page| {
            format!("<a class=\"{class}\" href=\"{}\">{}</a>", page.file, escaped(&page.rendered.title))
        })
    };
    let (before, after) = (link(at.checked_sub(1), "before"), link(Some(at + 1), "after"));
    format!("<nav class=\"steps\" aria-label=\"Neighbouring pages\">{before}{after}</nav>")
}
