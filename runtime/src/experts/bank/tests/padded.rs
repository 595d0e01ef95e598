//! Rows with bytes between them: what is stored as it is packed is not as it lies in a slot.

use super::*;

#[test]
fn rows_may_begin_at_multiples_of_16_bytes() {
    let tiny = Checkpoint::tiny().unwrap();
    let padded = vec![separate(Format::BF16, 3, 34, 36, 1), stacked([Format::Q3K, Format::Q4K, Format::Q5K], 4, 50)];
    let padded = Arc::new(Model { banks: padded, ..Model::new(&tiny.config, &tiny.weights) });
    let (dir, other, mut notices) = (TempDir::new("padded"), TempDir::new("padded, in ranges"), 0);
    for model in [padded, model(5)] {
        let (ranged, _) = ranged::in_ranges(&model);
        let open = |model: &Arc<Model>, dir: &TempDir, align| {
            HostBank::open_aligned(model, &ALL[..model.banks.len()], Some(dir.path()), align, &mut |_, _| ()).unwrap()
        };
        // Two devices take turns at the same directory.
        for align in [16, PACKED_ROWS, 16] {
            let fly = HostBank::keeping_nothing(&model, align);
            for mut host in
                [open(&model, &dir, align), open(&ranged, &other, align), fly, HostBank::keeping_nothing(&ranged, align)]
            {
                for bank in 0..model.banks.len() {
                    for expert in 0..model.banks[bank].len() {
                        let (blob, _) = handed_out(&mut host, bank, expert);
                        let case = format!("bank {bank}, expert {expert}, {align}, {:?}", host.kind());
                        assert!(blob == expected_rows(&model, bank, expert, align), "{case}");
                    }
                }
                notices += usize::from(host.notice().is_some());
            }
        }
    }
    // A model's experts need other files where rows are padded, and nobody overwrites another's.
    assert!(dir.names().iter().any(|n| n.ends_with("-16.bank")), "{:?}", dir.names());
    assert_eq!(notices, 0, "files made anew");
}
