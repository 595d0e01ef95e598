//! Numbers of bytes, said and understood.

/// A number of bytes for people: `512.0 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

/// The bytes that a person means by `6GiB`, `512 MiB`, `1.5g`; a number alone counts in `unit` bytes.
///
/// # Errors
/// In words, where it is no size.
pub fn parse(text: &str, unit: u64) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor = match suffix.trim().to_ascii_lowercase().as_str() {
        "" => unit as f64,
        "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1_048_576.0,
        "g" | "gib" => 1_073_741_824.0,
        "t" | "tib" => 1_099_511_627_776.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        other => return Err(format!("`{other}` is no unit; use KiB, MiB, GiB or TiB")),
    };
    let number: f64 = number.parse().map_err(|_| "use a number and a unit, as in 6GiB or 512MiB".to_owned())?;
    let bytes = number * factor;
    if bytes < 1.0 {
        return Err("must be more than nothing".into());
    }
    // Saturates: more than there can be is no limit.
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_and_understood() {
        assert_eq!([size(0), size(1023), size(1536), size(3 << 29)], ["0 B", "1023 B", "1.5 KiB", "1.5 GiB"]);
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
        assert_eq!(parse("6GiB", 1), Ok(6 << 30));
        assert_eq!(parse(" 512 mib ", 1), Ok(512 << 20));
        assert_eq!(parse("1.5g", 1), Ok(3 << 29));
        assert_eq!(parse("2GB", 1), Ok(2_000_000_000));
        assert_eq!(parse("3", 1 << 30), Ok(3 << 30));
        for bad in ["", "GiB", "-1GiB", "0", "1.2.3G", "6 gibibytes", "everything"] {
            assert!(parse(bad, 1 << 20).is_err(), "{bad}");
        }
        for bytes in [1 << 10, 5 << 20, 3 << 29, 7 << 40] {
            assert_eq!(parse(&size(bytes), 1), Ok(bytes));
        }
    }
}
