//! The pages of the guide, in the order in which they are read.

macro_rules! pages {
    ($($group:literal: [$($name:literal),* $(,)?]),* $(,)?) => {
        /// Group, file and text of each page.
        pub(super) const GUIDE: &[(&str, &str, &str)] = &[$($(
            ($group, concat!($name, ".html"), include_str!(concat!("../../../docs/", $name, ".md"))),
        )*)*];
    };
}

pages! {
    "Begin": ["index", "start", "install", "adopt", "patroni"],
    "Run it": ["nodes", "switchover", "failover", "majority", "timeouts", "durability"],
    "Use it": ["cli", "poolers", "readonly-statements", "security"],
    "Reference": ["codes", "glossary"],
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::GUIDE;

    #[test]
    fn every_text_of_the_guide_is_a_page() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let names = std::fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let texts: BTreeSet<_> = names.filter_map(|name| Some(format!("{}.html", name.strip_suffix(".md")?))).collect();
        assert_eq!(texts, GUIDE.iter().map(|(_, file, _)| (*file).to_owned()).collect());
    }
}
