//! The status page, which each node serves at `/`. Its HTML, CSS and JavaScript are compiled into the program.
//!
//! The page asks the API of the node that served it, as any client does, and no other host. The policy in its headers
//! enforces that: the browser loads nothing from elsewhere, and runs only the scripts that are files of the page. The
//! page writes what it shows of the cluster as text, never as HTML.

use dropshot::Body;
use http::{Response, StatusCode, header};

/// The content security policy: what the browser may load and run for the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The files: name, content type and text. The name of the page itself is empty.
const FILES: [(&str, &str, &str); 7] = [
    ("", HTML, include_str!("index.html")),
    ("style.css", CSS, include_str!("style.css")),
    ("icon.svg", SVG, include_str!("icon.svg")),
    ("api.js", SCRIPT, include_str!("api.js")),
    ("page.js", SCRIPT, include_str!("page.js")),
    ("picture.js", SCRIPT, include_str!("picture.js")),
    ("view.js", SCRIPT, include_str!("view.js")),
];

/// The answer to a request for the file `name` of the page; 404 if there is no such file.
///
/// # Errors
///
/// If the answer cannot be built.
pub fn file(name: &str) -> Result<Response<Body>, http::Error> {
    let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Response::builder()
            .status(StatusCode::NOT_FOUND)
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body("the page has no such file\n".into());
    };
    Response::builder()
        .header(header::CONTENT_TYPE, *kind)
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::REFERRER_POLICY, "no-referrer")
        // The file changes when the node's software is upgraded.
        .header(header::CACHE_CONTROL, "no-cache")
        .body((*text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_there_and_nothing_is_anywhere_else() {
        for (name, _, text) in FILES {
            for reference in
                ["href=\"page/", "src=\"page/", "from \"./"].iter().flat_map(|lead| text.split(lead).skip(1))
            {
                let file = reference.split('"').next().unwrap();
                assert_eq!(super::file(file).unwrap().status(), StatusCode::OK, "{name} names {file}");
            }
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("http:") && !foreign.contains("https:"), "{name}");
            assert!(!text.contains("style=\"") && !text.contains("onclick="), "{name}: the policy forbids it");
        }
        assert_eq!(file("nothing").unwrap().status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn every_word_that_the_page_links_is_in_the_glossary() {
        let (glossary, _) = crate::site::Site::get().unwrap().file("glossary.html").unwrap();
        let mut words = 0;
        for (name, _, text) in FILES {
            for word in text.split("docs/glossary.html#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(glossary.contains(&format!("id=\"{word}\"")), "{name} links to {word}");
                words += 1;
            }
        }
        assert!(words >= 10, "only {words} words are linked");
    }
}
