//! Addresses of models, as people paste them.

/// The address of a model's file.
///
/// # Errors
/// In words, where it is none.
pub(super) fn read(text: &str) -> Result<String, String> {
    let text = text.trim();
    let local = ["http://localhost", "http://127.0.0.1"].iter().any(|host| {
        let rest = text.strip_prefix(host);
        rest.is_some_and(|rest| rest.starts_with([':', '/']))
    });
    if !text.starts_with("https://") && !local {
        return Err("Use an address that begins with https://".into());
    }
    if text.contains(char::is_whitespace) {
        return Err("An address has no spaces".into());
    }
    // The page that shows a file links to the file itself in this way.
    let text = match text.strip_prefix("https://huggingface.co/") {
        Some(path) => format!("https://huggingface.co/{}", path.replacen("/blob/", "/resolve/", 1)),
        None => text.to_owned(),
    };
    let path = text.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    if !path.ends_with(".gguf") {
        return Err("Use the address of a .gguf file".into());
    }
    if path.contains("-of-0") {
        return Err("This is a part of a split model, which pages cannot load: look for the model in one file".into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let same =
            ["https://example.org/a/model.GGUF", "https://example.org/m.gguf?download=true", "http://localhost:8000/m.gguf"];
        for text in same {
            assert_eq!(read(&format!(" {text}\n")).as_deref(), Ok(text));
        }
        assert_eq!(
            read("https://huggingface.co/someone/model/blob/main/model-Q4_K.gguf").as_deref(),
            Ok("https://huggingface.co/someone/model/resolve/main/model-Q4_K.gguf")
        );
        let bad = [
            ("", "https"),
            ("model.gguf", "https"),
            ("http://example.org/m.gguf", "https"),
            ("http://localhost.example.org/m.gguf", "https"),
            ("https://example.org/m.zip", ".gguf"),
            ("https://example.org/m.zip?x=.gguf", ".gguf"),
            ("https://example.org/a b.gguf", "spaces"),
            ("https://example.org/m-00001-of-00003.gguf", "split"),
        ];
        for (text, why) in bad {
            assert!(read(text).is_err_and(|e| e.contains(why)), "{text}");
        }
    }
}
