// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the documentation of `dmf` and `dmf-modules` must have, beyond what rustdoc
//! and clippy check (that there is some, and `# Errors`, `# Panics`, `# Safety`).
//!
//! - A public function that calls the kernel or takes an IRQL token says at which
//!   level it may be called: `# IRQL`.
//! - A public type, and a public function that calls the kernel, names its counterpart
//!   with a link to Microsoft's page, or says `No C counterpart`.
//! - The link of a name leads to the page of that name.
//! - Examples run.
//!
//! The sources are read as they are, so what macros make of them is not seen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use syn::visit::Visit;
use syn::{Attribute, ImplItem, Item, TraitItem, Visibility};

/// Where the crates' sources are.
const SOURCES: [&str; 2] = ["src", "modules/src"];

/// Whose pages are counterparts.
const PAGES: [&str; 2] = [
    "https://learn.microsoft.com/",
    "https://github.com/microsoft/",
];

/// Fails, with a list, if anything is missing.
pub fn check(workspace: &Path) -> Result<()> {
    let mut missing = Vec::new();
    for root in SOURCES {
        for file in rust_files(&workspace.join(root))? {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.strip_prefix(workspace).unwrap_or(&file);
            missing.extend(
                of_file(&text)
                    .with_context(|| format!("{} is not Rust", name.display()))?
                    .into_iter()
                    .map(|what| format!("{}: {what}", name.display())),
            );
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "the documentation lacks {} thing(s):\n  {}",
        missing.len(),
        missing.join("\n  ")
    )
}

/// All Rust files below a folder, in order.
pub fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What the documentation of one file lacks.
fn of_file(text: &str) -> Result<Vec<String>> {
    let file = syn::parse_file(text)?;
    let mut missing: Vec<_> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| {
            let line = line.trim_start();
            ["//! ```", "/// ```"]
                .iter()
                .filter_map(|fence| line.strip_prefix(fence))
                .any(|kind| kind.contains("no_run") || kind.contains("ignore"))
        })
        .map(|(at, _)| format!("line {}: an example that does not run", at + 1))
        .collect();
    missing.extend(wrong_links(&docs(&file.attrs)).map(|what| format!("the module: {what}")));
    items(&file.items, "", &mut missing);
    Ok(missing)
}

fn items(all: &[Item], within: &str, missing: &mut Vec<String>) {
    for item in all {
        match item {
            Item::Fn(function) if is_public(&function.vis, &function.attrs) => {
                let name = format!("{within}{}", function.sig.ident);
                let called = Called::by(&function.block);
                function_docs(&name, &function.attrs, &function.sig, called, missing);
            }
            Item::Struct(item) if is_public(&item.vis, &item.attrs) => {
                type_docs(&format!("{within}{}", item.ident), &item.attrs, missing);
            }
            Item::Enum(item) if is_public(&item.vis, &item.attrs) => {
                type_docs(&format!("{within}{}", item.ident), &item.attrs, missing);
            }
            Item::Trait(item) if is_public(&item.vis, &item.attrs) => {
                let name = format!("{within}{}", item.ident);
                type_docs(&name, &item.attrs, missing);
                for function in &item.items {
                    if let TraitItem::Fn(function) = function
                        && !is_hidden(&function.attrs)
                    {
                        let name = format!("{name}::{}", function.sig.ident);
                        let called = function.default.as_ref().map_or(Called(false), Called::by);
                        function_docs(&name, &function.attrs, &function.sig, called, missing);
                    }
                }
            }
            Item::Impl(item) if item.trait_.is_none() => {
                let name = type_name(&item.self_ty);
                for function in &item.items {
                    if let ImplItem::Fn(function) = function
                        && is_public(&function.vis, &function.attrs)
                    {
                        let name = format!("{within}{name}::{}", function.sig.ident);
                        let called = Called::by(&function.block);
                        function_docs(&name, &function.attrs, &function.sig, called, missing);
                    }
                }
            }
            Item::Mod(item) if is_public(&item.vis, &item.attrs) => {
                if let Some((_, items_within)) = &item.content {
                    items(items_within, &format!("{within}{}::", item.ident), missing);
                }
            }
            _ => {}
        }
    }
}

fn type_docs(name: &str, attributes: &[Attribute], missing: &mut Vec<String>) {
    let text = docs(attributes);
    if !has_counterpart(&text) {
        missing.push(format!("{name}: the counterpart"));
    }
    missing.extend(wrong_links(&text).map(|what| format!("{name}: {what}")));
}

fn function_docs(
    name: &str,
    attributes: &[Attribute],
    signature: &syn::Signature,
    called: Called,
    missing: &mut Vec<String>,
) {
    let text = docs(attributes);
    if (called.0 || takes_token(signature)) && !text.contains("# IRQL") {
        missing.push(format!("{name}: # IRQL"));
    }
    if called.0 && !has_counterpart(&text) {
        missing.push(format!("{name}: the counterpart"));
    }
    missing.extend(wrong_links(&text).map(|what| format!("{name}: {what}")));
}

fn has_counterpart(text: &str) -> bool {
    text.contains("No C counterpart") || PAGES.iter().any(|page| text.contains(page))
}

/// Links of the form `` [`Name`][label] `` whose page is of another name.
fn wrong_links(text: &str) -> impl Iterator<Item = String> {
    let mut pages = BTreeMap::new();
    for line in text.lines() {
        if let Some((label, page)) = line
            .trim()
            .strip_prefix('[')
            .and_then(|l| l.split_once("]: "))
        {
            pages.insert(label.to_owned(), page.trim().to_owned());
        }
    }
    let mut wrong = Vec::new();
    for part in text.split("[`").skip(1) {
        let Some((name, rest)) = part.split_once("`][") else {
            continue;
        };
        let label = rest.split(']').next().unwrap_or_default();
        let Some(page) = pages.get(label) else {
            continue;
        };
        // Pages of functions and types: …/ddi/<header>/nf-<header>-<name>
        let Some((header, page_name)) = page
            .split_once("/ddi/")
            .and_then(|(_, page)| page.split_once('/'))
        else {
            continue;
        };
        let expected = name.trim_end_matches("()").to_lowercase();
        let found = ["nf", "ns", "ne", "nc", "ni"].iter().any(|kind| {
            let Some(page_name) = page_name.strip_prefix(&format!("{kind}-{header}-")) else {
                return false;
            };
            let page_name = page_name.trim_start_matches('_');
            page_name == expected
                // A callback's page has the name of its type: `evt_wdf_…`.
                || (expected.starts_with("evt") && page_name.starts_with("evt_"))
                // A handle has no page; the one of the function that makes it does.
                || page_name == format!("{expected}create")
        });
        if !found {
            wrong.push(format!("`{name}` leads to {page_name}"));
        }
    }
    wrong.into_iter()
}

/// Whether code calls a function of the kernel or of KMDF.
#[derive(Clone, Copy)]
struct Called(bool);

impl Called {
    fn by(block: &syn::Block) -> Self {
        let mut called = Self(false);
        called.visit_block(block);
        called
    }
}

impl Visit<'_> for Called {
    fn visit_expr_path(&mut self, path: &syn::ExprPath) {
        let segments = &path.path.segments;
        self.0 |= segments
            .iter()
            .any(|segment| segment.ident == "ntddk" || segment.ident == "kmdf");
        syn::visit::visit_expr_path(self, path);
    }
}

/// Whether a parameter is a token.
fn takes_token(signature: &syn::Signature) -> bool {
    struct Token(bool);
    impl Visit<'_> for Token {
        fn visit_path_segment(&mut self, segment: &syn::PathSegment) {
            self.0 |= segment.ident == "Irql";
            syn::visit::visit_path_segment(self, segment);
        }
    }
    let mut token = Token(false);
    for input in &signature.inputs {
        if let syn::FnArg::Typed(input) = input
            && let syn::Type::Reference(reference) = &*input.ty
            && let syn::Type::Path(path) = &*reference.elem
        {
            token.visit_type_path(path);
        }
    }
    token.0
}

fn is_public(visibility: &Visibility, attributes: &[Attribute]) -> bool {
    matches!(visibility, Visibility::Public(_)) && !is_hidden(attributes)
}

/// Whether rustdoc leaves it out.
fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("doc")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|what| what == "hidden")
    })
}

/// The text of the doc comments.
fn docs(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        if let syn::Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let syn::Expr::Lit(literal) = &pair.value
            && let syn::Lit::Str(line) = &literal.lit
        {
            text.push_str(&line.value());
            text.push('\n');
        }
    }
    text
}

fn type_name(ty: &syn::Type) -> String {
    match ty {
        syn::Type::Path(path) => path
            .path
            .segments
            .last()
            .map(|segment| segment.ident.to_string())
            .unwrap_or_default(),
        _ => "an impl".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: &str = "
        /// A clock. No C counterpart.
        pub struct Clock;
        impl Clock {
            /// The time.
            ///
            /// # IRQL
            /// Any.
            ///
            /// C counterpart: [`KeQueryTimeIncrement`][ms].
            ///
            /// [ms]: https://learn.microsoft.com/x/ddi/ntddk/nf-ntddk-kequerytimeincrement
            pub fn now() -> u32 { unsafe { sys::ntddk::KeQueryTimeIncrement() } }
            fn private() { unsafe { sys::ntddk::KeQueryTimeIncrement() }; }
            /// Waits.
            ///
            /// # IRQL
            /// `PASSIVE_LEVEL`
            pub fn wait(irql: &Irql<'_, Passive>) {}
            /// Nothing.
            pub fn nothing(&self) {}
        }
    ";

    #[test]
    fn what_is_complete_lacks_nothing() {
        assert_eq!(of_file(COMPLETE).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (there, instead, expected) in [
            (" No C counterpart.", "", "Clock: the counterpart"),
            ("# IRQL\n            /// Any.", "", "Clock::now: # IRQL"),
            (
                "# IRQL\n            /// `PASSIVE_LEVEL`",
                "",
                "Clock::wait: # IRQL",
            ),
            (
                "nf-ntddk-kequery",
                "nf-ntddk-query",
                "Clock::now: `KeQueryTimeIncrement` leads to nf-ntddk-querytimeincrement",
            ),
            (
                "/// The time.",
                "/// ```no_run",
                "line 5: an example that does not run",
            ),
        ] {
            let text = COMPLETE.replacen(there, instead, 1);
            assert_ne!(text, COMPLETE);
            assert_eq!(of_file(&text).unwrap(), [expected]);
        }
    }
}
