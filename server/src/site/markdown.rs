//! The guide's Markdown as HTML, with anchors, and with code that can be copied.

use std::collections::BTreeSet;

use pulldown_cmark::{CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html::push_html};

use super::escaped;

/// A page's text as HTML.
pub(super) struct Rendered {
    /// The first heading.
    pub(super) title: String,
    pub(super) html: String,
    /// Its sections, in order.
    pub(super) sections: Vec<Section>,
}

/// A heading and the text below it.
pub(super) struct Section {
    pub(super) level: u8,
    pub(super) id: String,
    pub(super) heading: String,
    /// Without any markup, for the search.
    pub(super) text: String,
}

/// Renders a page.
pub(super) fn render(text: &str) -> Rendered {
    let mut sections: Vec<Section> = Vec::new();
    let mut ids = BTreeSet::from(["main".to_owned()]);
    let mut events = Parser::new_ext(text, Options::ENABLE_TABLES);
    let mut out: Vec<Event<'_>> = Vec::new();
    while let Some(event) = events.next() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                let inner: Vec<_> = events.by_ref().take_while(|event| !is_end_of_heading(event)).collect();
                let heading = plain(&inner);
                let id = unique(slug(&heading), &mut ids);
                let level = number(level);
                out.push(Event::Html(format!("<h{level} id=\"{id}\">").into()));
                out.extend(inner);
                let name = escaped(&heading);
                let anchor =
                    format!(" <a class=\"anchor\" href=\"#{id}\" aria-label=\"Link to “{name}”\">#</a></h{level}>\n");
                out.push(Event::Html(anchor.into()));
                sections.push(Section { level, id, heading, text: String::new() });
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                let inner: Vec<_> =
                    events.by_ref().take_while(|event| !matches!(event, Event::End(TagEnd::CodeBlock))).collect();
                let code = plain(&inner);
                note(&mut sections, &code);
                let info = match &kind {
                    CodeBlockKind::Fenced(info) => info.as_ref(),
                    CodeBlockKind::Indented => "",
                };
                out.push(Event::Html(code_block(info, &code).into()));
            }
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                let dest_url = of_site(&dest_url);
                out.push(Event::Start(Tag::Link { link_type, dest_url, title, id }));
            }
            Event::Start(Tag::Table(columns)) => {
                // A table may be wider than a phone.
                out.push(Event::Html("<div class=\"table\">".into()));
                out.push(Event::Start(Tag::Table(columns)));
            }
            Event::End(TagEnd::Table) => {
                out.push(event);
                out.push(Event::Html("</div>\n".into()));
            }
            // Markup in a text is shown, not interpreted.
            Event::Html(markup) | Event::InlineHtml(markup) if !markup.starts_with("<!--") => {
                out.push(Event::Text(markup));
            }
            event => {
                if let Event::Text(text) | Event::Code(text) = &event {
                    note(&mut sections, text);
                }
                out.push(event);
            }
        }
    }
    let mut html = String::new();
    push_html(&mut html, out.into_iter());
    let title = sections.first().map_or_else(String::new, |section| section.heading.clone());
    Rendered { title, html, sections }
}

/// A block of code. Of its info string, which is for the tests, only the word `terminal` is shown to readers.
pub(super) fn code_block(info: &str, code: &str) -> String {
    let mut words = info.split_whitespace();
    let language = words.next().unwrap_or_default();
    let caption = match words.any(|word| word == "terminal") {
        true => "<figcaption>in a terminal of its own, where it stays</figcaption>",
        false => "",
    };
    let marked: String = code.trim_end().lines().map(|line| marked(language, line) + "\n").collect();
    format!("<figure class=\"code\">{caption}<pre tabindex=\"0\"><code>{marked}</code></pre></figure>\n")
}

/// A line of code with its comment marked.
fn marked(language: &str, line: &str) -> String {
    let comment = match language {
        "sh" | "yaml" if line.trim_start().starts_with('#') => Some(line.len() - line.trim_start().len()),
        "sh" | "yaml" => line.find("  # "),
        _ => None,
    };
    match comment {
        Some(at) => format!("{}<span class=\"comment\">{}</span>", escaped(&line[..at]), escaped(&line[at..])),
        None => escaped(line),
    }
}

/// Adds text to the section that is being read.
fn note(sections: &mut [Section], text: &str) {
    if let Some(section) = sections.last_mut() {
        section.text.push_str(text.trim());
        section.text.push(' ');
    }
}

/// A link to another Markdown file, as a link to its page.
fn of_site(link: &str) -> CowStr<'static> {
    let (file, id) = link.split_once('#').map_or((link, None), |(file, id)| (file, Some(id)));
    let page = match file.strip_suffix(".md") {
        Some(name) if !file.contains("://") => format!("{name}.html"),
        _ => file.into(),
    };
    id.map_or(page.clone(), |id| format!("{page}#{id}")).into()
}

fn is_end_of_heading(event: &Event<'_>) -> bool {
    matches!(event, Event::End(TagEnd::Heading(_)))
}

fn plain(events: &[Event<'_>]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::Text(text) | Event::Code(text) => Some(text.as_ref()),
        Event::SoftBreak => Some(" "),
        _ => None,
    });
    texts.collect()
}

fn number(level: HeadingLevel) -> u8 {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        HeadingLevel::H3 => 3,
        _ => 4,
    }
}

/// A heading as an id, as other sites have them: words in small letters, with hyphens between.
pub(super) fn slug(heading: &str) -> String {
    let heading = heading.replace('\'', "");
    let words = heading.split(|char: char| !char.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}

fn unique(id: String, known: &mut BTreeSet<String>) -> String {
    let free = (1..).map(|count| if count == 1 { id.clone() } else { format!("{id}-{count}") });
    let id = free.into_iter().find(|id| !known.contains(id)).unwrap_or(id);
    known.insert(id.clone());
    id
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headings_get_anchors_and_code_can_be_copied() {
        let text = "# A `GET` page\n\nSee [b](b.md#c), [d](https://d.example/e.md).\n\n## Twice\n\n## Twice\n\n\
                    ```sh terminal\n# why\nls  # what <x>\n```\n\n| a |\n|---|\n| <b> |\n";
        let Rendered { title, html, sections } = render(text);
        assert_eq!(title, "A GET page");
        for expected in [
            "<h1 id=\"a-get-page\">A <code>GET</code> page <a class=\"anchor\" href=\"#a-get-page\"",
            "<a href=\"b.html#c\">b</a>",
            "<a href=\"https://d.example/e.md\">d</a>",
            "<h2 id=\"twice-2\">",
            "<figcaption>in a terminal",
            "<span class=\"comment\"># why</span>\nls<span class=\"comment\">  # what &lt;x&gt;</span>",
            "<div class=\"table\"><table>",
            "&lt;b&gt;",
        ] {
            assert!(html.contains(expected), "{expected} is not in {html}");
        }
        assert_eq!(
            sections.iter().map(|section| section.id.as_str()).collect::<Vec<_>>(),
            ["a-get-page", "twice", "twice-2"]
        );
        assert!(sections[2].text.contains("ls  # what <x>"));
    }

    proptest! {
        #[test]
        fn any_text_is_rendered(text in ".{0,300}") {
            render(&text);
        }
    }
}
