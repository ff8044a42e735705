//! `include_proto!`
use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro::TokenStream;
use proc_macro2::{Group, Span, TokenStream as TokenStream2, TokenTree};
use syn::punctuated::Punctuated;
use syn::{LitStr, Token, parse_macro_input};
use trunkline_build::{CompileError, Config};

/// Puts the Rust of `.proto` files in its place.
#[proc_macro]
pub fn include_proto(input: TokenStream) -> TokenStream {
    let files = parse_macro_input!(input with Punctuated::<LitStr, Token![,]>::parse_terminated);
    let place = files.first().map_or_else(Span::call_site, LitStr::span);
    let names: Vec<String> = files.iter().map(LitStr::value).collect();
    let base = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let expanded = expand(&base, &names).map_err(|error| error.to_string());
    let parsed = expanded.and_then(|text| {
        let tokens = TokenStream2::from_str(&text);
        tokens.map_err(|error| error.to_string())
    });
    match parsed {
        Ok(tokens) => located(tokens, place).into(),
        Err(message) => syn::Error::new(place, message).into_compile_error().into(),
    }
}

/// Gives all tokens the place of the name of the file.
///
/// So they are code of the user's for every lint, as those in an included file are. With the place
/// of the macro, rustc would not see that a use of a deprecated field is in a derived `impl`.
fn located(tokens: TokenStream2, place: Span) -> TokenStream2 {
    tokens
        .into_iter()
        .map(|mut token| {
            if let TokenTree::Group(group) = &token {
                token = Group::new(group.delimiter(), located(group.stream(), place)).into();
            }
            token.set_span(place);
            token
        })
        .collect()
}

/// The Rust of `files`, and what makes rustc read them again when they change.
fn expand(base: &Path, files: &[String]) -> Result<String, CompileError> {
    let generated = Config::new().base_dir(base).generate(files)?;
    let mut text = generated.nested();
    for source in generated.sources() {
        // A macro has no other way on stable Rust to tell what it has read.
        text.push_str(&format!(
            "const _: &[u8] = ::core::include_bytes!({source:?});\n"
        ));
    }
    Ok(text)
}
