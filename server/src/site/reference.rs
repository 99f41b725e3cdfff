//! The reference of the API as a page: operations with their parameters and answers, and schemas.

use std::fmt::Write;

use serde_json::Value;

use super::escaped;
use super::markdown::{Rendered, Section, code_block, render as markdown, slug};

const METHODS: [&str; 6] = ["get", "head", "options", "post", "patch", "delete"];

/// Renders the reference that an OpenAPI document gives.
pub(super) fn render(document: &Value) -> Rendered {
    let mut page = Rendered { title: "The API".into(), html: String::new(), sections: Vec::new() };
    heading(&mut page, 1, "The API", "the-api");
    add(&mut page, &rendered(text(&document["info"]["description"])));
    add(
        &mut page,
        &rendered(
            "In the examples, `$API` is the address of a node, such as `http://127.0.0.1:8081`. The description itself, \
             for generators of clients, is `openapi.yaml`: `qluster-server openapi` prints it.",
        ),
    );
    for tag in list(&document["tags"]) {
        let name = text(&tag["name"]);
        heading(&mut page, 2, &capitalized(name), name);
        add(&mut page, &rendered(&format!("{}.", text(&tag["description"]))));
        for (path, item) in members(&document["paths"]) {
            for method in METHODS {
                let operation = &item[method];
                if list(&operation["tags"]).any(|of| of == name) {
                    describe(&mut page, document, method, path, operation);
                }
            }
        }
    }
    heading(&mut page, 2, "Schemas", "schemas");
    for (name, schema) in members(&document["components"]["schemas"]) {
        describe_schema(&mut page, name, schema);
    }
    page
}

fn describe(page: &mut Rendered, document: &Value, method: &str, path: &str, operation: &Value) {
    let name = format!("{} {path}", method.to_uppercase());
    heading(page, 3, &name, &slug(&name));
    add(page, &rendered(&format!("**{}.** {}", text(&operation["summary"]), text(&operation["description"]))));
    add(page, &code_block("sh", &curl(document, method, path, operation)));
    let rows: String = list(&operation["parameters"])
        .map(|parameter| {
            let required = if parameter["required"] == true { "required" } else { "optional" };
            let (place, name) = (text(&parameter["in"]), escaped(text(&parameter["name"])));
            let (kind, what) = (kind(&parameter["schema"]), inline(text(&parameter["description"])));
            format!("<tr><td><code>{name}</code><br>{place}, {required}</td><td>{kind}</td><td>{what}</td></tr>")
        })
        .collect();
    if !rows.is_empty() {
        add(page, &table(&["Parameter", "Type", "Means"], &rows));
    }
    if let Some((media, content)) = members(&operation["requestBody"]["content"]).next() {
        add(page, &format!("<p>Body: {} ({}).</p>", kind(&content["schema"]), escaped(media)));
    }
    let rows: String = members(&operation["responses"])
        .map(|(code, answer)| {
            let content = members(&answer["content"]).next();
            let body = content.map_or(String::new(), |(_, content)| kind(&content["schema"]));
            format!("<tr><td>{code}</td><td>{}</td><td>{body}</td></tr>", inline(text(&answer["description"])))
        })
        .collect();
    add(page, &table(&["Code", "Means", "Body"], &rows));
    if let Some((_, content)) = members(&operation["responses"]["200"]["content"]).next() {
        show(page, "<p>An answer:</p>\n", &example_of(document, &content["schema"]));
    }
}

/// An example of a body of this schema; null if there is none.
fn example_of(document: &Value, schema: &Value) -> Value {
    match reference(schema) {
        Some(name) => document["components"]["schemas"][name]["example"].clone(),
        None if schema["type"] == "array" => {
            Some(example_of(document, &schema["items"])).filter(|item| !item.is_null()).into_iter().collect()
        }
        None => Value::Null,
    }
}

/// Shows an example, unless it is empty.
fn show(page: &mut Rendered, introduction: &str, example: &Value) {
    let nothing = example.is_null() || example.as_array().is_some_and(Vec::is_empty);
    // A value of JSON can be written as JSON.
    if let (false, Ok(example)) = (nothing, serde_json::to_string_pretty(example)) {
        add(page, introduction);
        add(page, &code_block("json", &example));
    }
}

fn describe_schema(page: &mut Rendered, name: &str, schema: &Value) {
    heading(page, 3, name, &format!("schema-{}", name.to_lowercase()));
    add(page, &rendered(text(&schema["description"])));
    let required: Vec<_> = list(&schema["required"]).map(text).collect();
    let rows: String = members(&schema["properties"])
        .map(|(field, schema)| {
            let mark = if required.contains(&field.as_str()) { "" } else { "<br>may be missing" };
            let what = inline(text(&schema["description"]));
            format!("<tr><td><code>{}</code>{mark}</td><td>{}</td><td>{what}</td></tr>", escaped(field), kind(schema))
        })
        .collect();
    if !rows.is_empty() {
        add(page, &table(&["Field", "Type", "Means"], &rows));
    }
    let variants: String = list(&schema["enum"])
        .map(|value| (value, ""))
        .chain(
            list(&schema["oneOf"]).flat_map(|one| list(&one["enum"]).map(|value| (value, text(&one["description"])))),
        )
        .map(|(value, what)| {
            format!("<tr><td><code>{}</code></td><td>{}</td></tr>", escaped(text(value)), inline(what))
        })
        .collect();
    if !variants.is_empty() {
        add(page, &table(&["Value", "Means"], &variants));
    } else if rows.is_empty() {
        add(page, &format!("<p>Type: {}.</p>", kind(schema)));
    }
    show(page, "", &schema["example"]);
}

/// The command that sends the request.
fn curl(document: &Value, method: &str, path: &str, operation: &Value) -> String {
    let mut path = path.to_owned();
    let (mut query, mut headers) = (Vec::new(), String::new());
    for parameter in list(&operation["parameters"]) {
        let name = text(&parameter["name"]);
        let value = example(document, name, &parameter["schema"]);
        match text(&parameter["in"]) {
            "path" => path = path.replace(&format!("{{{name}}}"), &value),
            "header" => headers.push_str(&format!(" -H '{name}: {value}'")),
            _ if parameter["required"] == true || method == "get" => query.push(format!("{name}={value}")),
            _ => {}
        }
    }
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let verb = match method {
        "get" => String::new(),
        "head" => "-I ".into(),
        _ => format!("-X {} ", method.to_uppercase()),
    };
    let body = members(&operation["requestBody"]["content"]).next().map_or(String::new(), |(media, content)| {
        format!(" \\\n    -H 'Content-Type: {media}' -d '{}'", content["example"])
    });
    format!("curl -s {verb}\"$API{path}{query}\"{headers}{body}")
}

/// A value for a parameter, as a URL has it.
fn example(document: &Value, name: &str, schema: &Value) -> String {
    let referred = reference(schema).map(|name| &document["components"]["schemas"][name]["example"]);
    match (name, referred) {
        // Long polls answer at once if there is something newer.
        ("after-index", _) => "0".into(),
        ("wait", _) => "1s".into(),
        ("limit", _) => "10".into(),
        ("db-port", _) => "5432".into(),
        ("node", _) => "2".into(),
        ("lag", _) => "16MB".into(),
        ("if-none-match", _) => "\"0\"".into(),
        (_, _) if schema["format"] == "ip" => "127.0.0.1".into(),
        (_, Some(Value::String(value))) => value.clone(),
        (_, Some(value)) if !value.is_null() => value.to_string(),
        _ => schema["type"].as_str().unwrap_or("value").to_owned(),
    }
}

/// A type as HTML, with a link to its schema if it has one.
fn kind(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return format!("<a href=\"#schema-{}\">{name}</a>", name.to_lowercase());
    }
    match (text(&schema["type"]), text(&schema["format"])) {
        ("array", _) => format!("list of {}", kind(&schema["items"])),
        ("object", _) if schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        ("", _) => "any".into(),
        (kind, "") => kind.into(),
        (kind, format) => format!("{kind} ({format})"),
    }
}

/// The name of the schema that this one refers to.
fn reference(schema: &Value) -> Option<&str> {
    let direct = schema["$ref"].as_str();
    let wrapped = || list(&schema["allOf"]).next().and_then(|only| only["$ref"].as_str());
    direct.or_else(wrapped)?.rsplit('/').next()
}

fn table(heads: &[&str], rows: &str) -> String {
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    format!("<div class=\"table\"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>\n")
}

fn heading(page: &mut Rendered, level: u8, heading: &str, id: &str) {
    let name = escaped(heading);
    // Writing to a string does not fail.
    let _ = writeln!(
        page.html,
        "<h{level} id=\"{id}\">{name} <a class=\"anchor\" href=\"#{id}\" aria-label=\"Link to “{name}”\">#</a></h{level}>"
    );
    page.sections.push(Section { level, id: id.into(), heading: heading.into(), text: String::new() });
}

/// Adds HTML to the page, and its text to the index of the search.
fn add(page: &mut Rendered, html: &str) {
    page.html.push_str(html);
    if let Some(section) = page.sections.last_mut() {
        let mut inside = false;
        let visible = html.chars().filter(|&char| {
            inside = (inside || char == '<') && char != '>';
            !inside && char != '>'
        });
        section.text.extend(visible.map(|char| if char == '\n' { ' ' } else { char }));
    }
}

fn rendered(text: &str) -> String {
    markdown(text).html
}

/// A sentence of markdown without the paragraph around it.
fn inline(text: &str) -> String {
    let html = rendered(text);
    let html = html.trim();
    html.strip_prefix("<p>").and_then(|html| html.strip_suffix("</p>")).unwrap_or(html).to_owned()
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
