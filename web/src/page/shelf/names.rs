//! Addresses of models, and the names that models have on the shelf.

use crate::kept::MODEL;

/// Most characters of a name.
const LONGEST: usize = 120;

/// The address to ask: of pages that show a file, where these are known, that of the file itself. In words what is wrong.
pub fn address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let url = web_sys::Url::new(text).map_err(|_| format!("`{text}` is not an address; one begins with https://"))?;
    if !matches!(url.protocol().as_str(), "https:" | "http:") {
        return Err(format!("`{text}` cannot be downloaded: only addresses that begin with https:// or http:// can"));
    }
    // What follows `#` is not for servers.
    url.set_hash("");
    if matches!(url.hostname().as_str(), "huggingface.co" | "hf.co") {
        let path = url.pathname();
        let mut parts: Vec<&str> = path.split('/').collect();
        // /OWNER/NAME/blob/REVISION/FILE
        if let Some(part) = parts.get_mut(3).filter(|p| **p == "blob") {
            *part = "resolve";
            url.set_pathname(&parts.join("/"));
        }
    }
    Ok(url.href())
}

/// The name of the file at an address.
pub fn of_address(address: &str) -> String {
    let path = web_sys::Url::new(address).map(|u| u.pathname()).unwrap_or_default();
    let last = path.rsplit('/').find(|p| !p.is_empty()).unwrap_or_default();
    let last = js_sys::decode_uri_component(last).ok().and_then(|t| t.as_string()).unwrap_or_else(|| last.to_owned());
    clean(&last)
}

/// A name that every file system takes, and that ends as models' names do.
pub fn clean(name: &str) -> String {
    let stem = name.strip_suffix(MODEL).unwrap_or(name);
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ' | '+') { c } else { '_' };
    let stem: String = stem.chars().take(LONGEST).map(plain).collect();
    let stem = stem.trim_matches(['.', ' ']);
    format!("{}{MODEL}", if stem.is_empty() { "model" } else { stem })
}

/// A name that is not taken, as near to this one as can be.
pub fn unique(name: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_owned();
    }
    let stem = name.strip_suffix(MODEL).unwrap_or(name);
    (2u64..).map(|n| format!("{stem}-{n}{MODEL}")).find(|n| !taken(n)).unwrap_or_else(|| name.to_owned())
}
