//! Reports side by side: two of them in detail, many at a glance.

pub mod diff;
pub mod matrix;

use crate::report::Identity;

/// What identities are compared by: a name, and what it is for an adapter.
pub(crate) fn fields(i: &Identity) -> Vec<(String, String)> {
    let sizes = i.subgroup_sizes.map_or_else(|| "none".to_owned(), |(least, most)| format!("{least} to {most}"));
    let seen: Vec<String> = i.subgroup_sizes_seen.iter().map(u32::to_string).collect();
    let id = |n: u32| if n == 0 { "not told".to_owned() } else { format!("{n:#06x}") };
    let mut all = vec![
        ("adapter".to_owned(), i.name.clone()),
        ("kind".to_owned(), i.kind.clone()),
        ("backend".to_owned(), i.backend.clone()),
        ("driver".to_owned(), i.driver.clone()),
        ("vendor".to_owned(), id(i.vendor_id)),
        ("device".to_owned(), id(i.device_id)),
        ("computes on the CPU".to_owned(), if i.software { "yes" } else { "no" }.to_owned()),
        ("platform".to_owned(), i.platform.clone()),
        ("kernels".to_owned(), i.tier.clone()),
        ("subgroup sizes".to_owned(), sizes),
        ("subgroup sizes seen".to_owned(), if seen.is_empty() { "none".to_owned() } else { seen.join(", ") }),
    ];
    all.extend(i.versions.iter().map(|(name, version)| (name.clone(), version.clone())));
    all
}
