//! The documentation as a site: the guide in `docs/` and the reference of the API, which every node serves at `/docs` and
//! `qluster-server docs DIR` writes to files.
//!
//! All pages are files in one directory. Their links are relative, and they load nothing from other hosts, so that they
//! read the same from a node and from a disk.

mod guide;
mod html;
mod markdown;
mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use self::guide::GUIDE;
use self::html::{escaped, frame};
use self::markdown::Rendered;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// The description of the API. A test holds it against the API itself.
const DESCRIPTION: &str = include_str!("../../../openapi.yaml");
/// The reference's page.
const REFERENCE: &str = "api.html";
/// The first page.
pub const INDEX: &str = "index.html";

/// Rendered at the first request.
static SITE: LazyLock<Result<Site, SiteError>> = LazyLock::new(Site::build);

/// Why the site cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The description is not YAML.
    #[error("the description of the API cannot be read")]
    Description(#[from] serde_norway::Error),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// All files of the site, by name.
pub struct Site(BTreeMap<&'static str, String>);

/// A page before its frame is around it.
struct Page {
    file: &'static str,
    /// Its heading in the list of pages.
    group: &'static str,
    rendered: Rendered,
}

impl Site {
    /// The site of this program.
    ///
    /// # Errors
    ///
    /// A defect: the API's description cannot be read.
    pub fn get() -> Result<&'static Self, &'static SiteError> {
        SITE.as_ref()
    }

    fn build() -> Result<Self, SiteError> {
        let document: serde_json::Value = serde_norway::from_str(DESCRIPTION)?;
        let mut pages: Vec<_> =
            GUIDE.iter().map(|&(group, file, text)| Page { file, group, rendered: markdown::render(text) }).collect();
        pages.push(Page { file: REFERENCE, group: "Reference", rendered: reference::render(&document) });
        let mut files: BTreeMap<_, _> =
            pages.iter().enumerate().map(|(at, page)| (page.file, frame(&pages, at, &page.rendered))).collect();
        files.insert("style.css", STYLE.into());
        files.insert("script.js", format!("{SCRIPT}\n{}", search_index(&pages)));
        Ok(Self(files))
    }

    /// A file and its content type; None if there is no file of that name.
    pub fn file(&self, name: &str) -> Option<(&str, &'static str)> {
        let text = self.0.get(name)?;
        let kind = match name.rsplit_once('.') {
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "js")) => "text/javascript; charset=utf-8",
            _ => "text/html; charset=utf-8",
        };
        Some((text, kind))
    }

    /// All files, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (*name, text.as_str()))
    }

    /// Writes all files into `dir`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// The directory or a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), SiteError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SiteError::Write { path, source }
        };
        std::fs::create_dir_all(dir).map_err(failed(dir))?;
        for (name, text) in self.files() {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(failed(&path))?;
        }
        Ok(())
    }
}

/// The index for the search on the page, as a statement of JavaScript: a page from a disk may not fetch anything.
fn search_index(pages: &[Page]) -> String {
    let sections = pages.iter().flat_map(|page| {
        page.rendered.sections.iter().map(|section| {
            let title = &page.rendered.title;
            serde_json::json!([format!("{}#{}", page.file, section.id), title, section.heading, section.text])
        })
    });
    format!("const SECTIONS = {};\n", serde_json::Value::from_iter(sections))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The values of an attribute in a page.
    fn values<'a>(text: &'a str, attribute: &str) -> Vec<&'a str> {
        let begins = format!(" {attribute}=\"");
        text.split(&begins).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
    }

    #[test]
    fn every_link_leads_to_something_and_nothing_is_loaded_from_other_hosts() {
        let site = Site::build().unwrap();
        let ids: BTreeMap<&str, BTreeSet<&str>> =
            site.files().map(|(name, text)| (name, values(text, "id").into_iter().collect())).collect();
        for (name, text) in site.files().filter(|(name, _)| name.ends_with(".html")) {
            assert_eq!(values(text, "id").len(), ids[name].len(), "{name}: an id is there twice");
            for link in values(text, "href") {
                if link.starts_with("https://") {
                    continue;
                }
                let (file, id) = link.split_once('#').unwrap_or((link, ""));
                let file = if file.is_empty() { name } else { file };
                let there = ids.get(file).unwrap_or_else(|| panic!("{name}: {link} leads nowhere"));
                assert!(id.is_empty() || there.contains(id), "{name}: {link} leads nowhere");
            }
            for source in values(text, "src") {
                assert!(ids.contains_key(source), "{name}: {source} is not part of the site");
            }
            assert!(!text.contains("<link rel=\"stylesheet\" href=\"http"), "{name}");
        }
        let fetches = [STYLE, SCRIPT].iter().any(|text| text.contains("http") || text.contains("fetch("));
        assert!(!fetches, "the site asks another host");
    }

    #[test]
    fn every_page_is_listed_on_every_page() {
        let site = Site::build().unwrap();
        let pages: Vec<_> = site.files().filter(|(name, _)| name.ends_with(".html")).collect();
        assert_eq!(pages.len(), GUIDE.len() + 1);
        for (name, text) in &pages {
            for (other, _) in &pages {
                assert!(text.contains(&format!("href=\"{other}\"")), "{name} does not list {other}");
            }
        }
    }

    #[test]
    fn the_site_is_written_as_it_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::get().unwrap();
        site.write(&dir.path().join("site")).unwrap();
        for (name, text) in site.files() {
            assert_eq!(std::fs::read_to_string(dir.path().join("site").join(name)).unwrap(), text);
        }
        assert!(site.file(INDEX).is_some_and(|(_, kind)| kind.starts_with("text/html")));
        assert!(site.file("../main.rs").is_none());
    }
}
