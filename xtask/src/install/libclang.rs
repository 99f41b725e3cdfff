//! Whether libclang is installed, in the places where the build of `pg_query` looks for it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Names the one place where the build then looks: the library, or its directory.
const VARIABLE: &str = "LIBCLANG_PATH";

/// Where distributions put libraries.
const LIBRARIES: [&str; 2] = ["/usr/lib", "/usr/lib64"];

/// Whether the build will find libclang and the headers that come with it.
pub(super) fn is_there() -> bool {
    found(given().as_deref(), &LIBRARIES.map(Path::new))
}

/// Fails if `LIBCLANG_PATH` is set and leads nowhere: installing a package would not help.
pub(super) fn check_path() -> Result<()> {
    match given() {
        Some(path) if !holds_library(&path) => {
            bail!("{VARIABLE} is {}, and there is no libclang: correct it or unset it", path.display())
        }
        _ => Ok(()),
    }
}

fn given() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// Whether there is the library, in the place that is given or else below `roots`, and its headers in either.
fn found(given: Option<&Path>, roots: &[&Path]) -> bool {
    let system: Vec<PathBuf> = roots.iter().flat_map(|root| below(root)).collect();
    let has_library = match given {
        Some(path) => holds_library(path),
        None => system.iter().any(|dir| holds_library(dir)),
    };
    let given = given.map(|path| if path.is_dir() { path } else { path.parent().unwrap_or(path) });
    has_library && system.iter().map(PathBuf::as_path).chain(given).any(holds_headers)
}

/// The directory itself, and those of the versions of LLVM in it.
fn below(root: &Path) -> Vec<PathBuf> {
    let versions = entries(root).into_iter().filter(|path| name(path).starts_with("llvm"));
    versions.map(|version| version.join("lib")).chain([root.to_owned()]).collect()
}

/// Whether this is the library, or a directory that holds it.
fn holds_library(path: &Path) -> bool {
    is_library(path) && path.is_file() || entries(path).iter().any(|path| is_library(path))
}

/// libclang-cpp is another library, in C++.
fn is_library(path: &Path) -> bool {
    let name = name(path);
    name.starts_with("libclang") && name.contains(".so") && !name.starts_with("libclang-cpp")
}

/// Whether the headers of a version are in `clang/VERSION/include`. Debian has them in a package of their own.
fn holds_headers(dir: &Path) -> bool {
    entries(&dir.join("clang")).iter().any(|version| version.join("include/stddef.h").exists())
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Directory;

    /// A directory with these files.
    fn tree(what: &str, files: &[&str]) -> Directory {
        let dir = Directory::create(what, None).unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        dir
    }

    #[test]
    fn the_library_and_its_headers_are_both_needed() {
        const HEADER: &str = "llvm-14/lib/clang/14.0.6/include/stddef.h";
        for (number, (files, expected)) in [
            (&[][..], false),
            (&["llvm-14/lib/libclang.so.1"], false),
            (&[HEADER], false),
            (&["llvm-14/lib/libclang.so.1", HEADER], true),
            (&["llvm-14/lib/libclang-cpp.so.14", HEADER], false),
            (&["libclang.so.17", "clang/17/include/stddef.h"], true),
        ]
        .into_iter()
        .enumerate()
        {
            let dir = tree(&format!("libclang{number}"), files);
            assert_eq!(found(None, &[dir.path(), Path::new("/absent")]), expected, "{files:?}");
        }
    }

    #[test]
    fn a_place_that_is_given_is_the_only_one_for_the_library() {
        let system = tree("libclang-system", &["libclang.so.17", "clang/17/include/stddef.h"]);
        let empty = tree("libclang-empty", &["clang/18/include/stddef.h"]);
        let own = tree("libclang-own", &["libclang.so"]);
        let roots = [system.path()];
        assert!(!found(Some(empty.path()), &roots));
        assert!(!found(Some(Path::new("/absent")), &roots));
        assert!(found(Some(own.path()), &roots));
        assert!(found(Some(&own.path().join("libclang.so")), &roots));
        assert!(!found(Some(&own.path().join("libclang.so.9")), &roots));
        assert!(!found(Some(own.path()), &[]), "there are no headers");
    }
}
