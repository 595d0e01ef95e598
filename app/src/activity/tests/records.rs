//! Recording, files, replay.

use pleiad_runtime::experts::trace::TraceWriter;

use super::*;

fn recorded() -> (Activity, Record) {
    let mut activity = Activity::new(shape(), 16);
    activity.start_recording(1 << 20);
    let mut random = Random(50);
    for run in 1..4 {
        generation(&mut activity, &mut random, run, 7, 9, 20.0 * run as f64);
    }
    activity.stop_recording();
    let record = activity.record();
    (activity, record)
}

fn same(a: &Record, b: &Record, text: bool) {
    assert_eq!((a.layers, a.experts, a.top_k, a.rows()), (b.layers, b.experts, b.top_k, b.rows()));
    for (a, b) in a.tokens().iter().zip(b.tokens()) {
        assert_eq!((a.run, a.position, a.id, a.phase, a.time), (b.run, b.position, b.id, b.phase, b.time));
        assert_eq!(a.choices, b.choices);
        assert_eq!(if text { a.text.as_str() } else { "" }, b.text);
    }
}

#[test]
fn recorded_written_read_and_replayed_is_the_same() {
    let (activity, mut record) = recorded();
    assert_eq!(record.tokens().len(), 45);
    for (token, text) in record.tokens.iter_mut().zip(["a,b", "\"", "\n", "\r\n", " ", "", "，。", "=1+1", "#", "\u{feff}"]) {
        token.text = text.into();
    }
    for format in [TraceFormat::Csv, TraceFormat::Jsonl] {
        for text in [true, false] {
            let written = record.write(format, text);
            let read = Record::read(written.as_bytes(), activity.shape()).unwrap();
            same(&record, &read, text);
            assert_eq!(read.model, record.model);
            assert_eq!(written.contains("w1"), text);
            let mut replay = Replay::new(Arc::new(read), Arc::clone(activity.shape()), 16);
            replay.seek(usize::MAX);
            assert!(replay.over());
            assert_eq!(replay.activity().sums(), activity.sums());
            assert_eq!(replay.activity().lru(), activity.lru());
        }
    }
    let csv = record.write(TraceFormat::Csv, true);
    assert!(csv.starts_with("# model=Small, \"quoted\" model\n# layers=4 experts=16 top_k=3\nrun,time,phase,position,id,text,"));
    let jsonl = record.write(TraceFormat::Jsonl, true);
    assert!(
        jsonl.starts_with("{\"model\":\"Small, \\\"quoted\\\" model\",\"layers\":4,\"experts\":16,\"top_k\":3}\n{\"run\":1,")
    );
}

#[test]
fn what_the_command_line_writes_is_read() {
    let shape = shape();
    let mut random = Random(51);
    let (prompt, answer) = (random.tokens(&shape, 0..5), random.tokens(&shape, 5..9));
    let again = random.tokens(&shape, 3..6);
    let rows = [by_layer(&prompt), answer.concat(), again.concat()].concat();
    for format in [TraceFormat::Csv, TraceFormat::Jsonl] {
        let mut writer = TraceWriter::new(Vec::new(), format).unwrap();
        writer.rows(&rows).unwrap();
        let record = Record::read(&writer.finish().unwrap(), &shape).unwrap();
        assert_eq!(record.rows(), rows.len());
        let tokens: Vec<_> = record.tokens().iter().map(|t| (t.run, t.position, t.phase)).collect();
        let expected: Vec<_> = (0..5)
            .map(|p| (0, p, Phase::Prompt))
            .chain((5..9).map(|p| (0, p, Phase::Answer)))
            .chain((3..6).map(|p| (1, p, Phase::Answer)))
            .collect();
        assert_eq!(tokens, expected);
        assert_eq!(record.tokens()[6].choices, answer[1]);
        assert!(record.seconds() > 0.0);
        assert_eq!(record.snapshot("file", &shape).counts.iter().sum::<u64>(), rows.len() as u64);
    }
}

#[test]
fn other_models_are_refused_in_words() {
    let (_, record) = recorded();
    let wide = Shape { model: "Wide".into(), experts: 64, ..shape().as_ref().clone() };
    for format in [TraceFormat::Csv, TraceFormat::Jsonl] {
        let error = Record::read(record.write(format, true).as_bytes(), &wide).unwrap_err();
        assert!(error.contains("4 layers, 16 experts and 3 chosen") && error.contains("Wide has 4, 64 and 3"), "{error}");
    }
    let csv = "position,layer,rank,expert,weight,residency,bytes\n";
    for (text, what) in [
        ("", "no column position"),
        ("position,layer\n", "no column rank"),
        (csv, "empty"),
        (&format!("{csv}0,0,0,0,1,hit,0\n"), "line 2: layer 0 of Small, \"quoted\" model has no experts"),
        (&format!("{csv}0,9,0,0,1,hit,0\n"), "line 2: layer 9: Small, \"quoted\" model has 4 layers"),
        (&format!("{csv}\n0,1,0,16,1,hit,0\n"), "line 3: expert 16"),
        (&format!("{csv}0,1,3,1,1,hit,0\n"), "rank 3"),
        (&format!("{csv}0,1,0,1,inf,hit,0\n"), "not finite"),
        (&format!("{csv}0,1,0,1,1,gone,0\n"), "residency \"gone\""),
        (&format!("{csv}0,1,0\n"), "no expert"),
        (&format!("{csv}\"0,1,0\n"), "line 2: quotes"),
        (&format!("# experts=many\n{csv}"), "experts \"many\""),
        (&format!("# layers=5\n{csv}"), "5 layers, an unknown number of experts"),
        ("run,position,layer,rank,expert,weight,residency,bytes\n1,0,1,0,1,1,hit,0\n1,0,1,0,2,1,hit,0\n", "line 3: the token"),
        ("phase,position,layer,rank,expert,weight,residency,bytes\nlate,0,1,0,1,1,hit,0\n", "expected prompt or answer"),
        ("{\"experts\":16}\n{\"expert\":1}\n", "line 2: column"),
        ("{\"experts\":\"x\"}\n", "line 1: column"),
        ("{", "line 1: column"),
    ] {
        let error = Record::read(text.as_bytes(), &shape()).unwrap_err();
        assert!(error.contains(what), "{text:?}: {error}");
    }
    assert!(Record::read(&[0xff, 0xfe], &shape()).unwrap_err().contains("not text"));
}

#[test]
fn hostile_files_are_read_or_refused() {
    const ODD: &[u8] = b"\n\r,\"{}#-90e.\xff\0\\:";
    let (_, record) = recorded();
    let mut random = Random(52);
    let mut read = 0;
    for format in [TraceFormat::Csv, TraceFormat::Jsonl] {
        let whole = record.write(format, true).into_bytes();
        // To the end of a line.
        let whole = &whole[..=whole[..3000].iter().rposition(|&b| b == b'\n').unwrap()];
        for end in (0..whole.len()).step_by(7) {
            read += usize::from(Record::read(&whole[..end], &shape()).is_ok());
        }
        for _ in 0..1500 {
            let mut bytes = whole.to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                let byte = ODD[random.below(ODD.len())];
                match random.below(3) {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => {
                        bytes.remove(at);
                    }
                }
            }
            if let Ok(record) = Record::read(&bytes, &shape()) {
                read += 1;
                let mut replay = Replay::new(Arc::new(record), shape(), 4);
                replay.seek(usize::MAX);
            }
        }
    }
    assert!(read > 100, "{read}");
}

#[test]
fn recording_is_bounded_and_says_so() {
    let mut activity = Activity::new(shape(), 64);
    activity.start_recording(30);
    assert!(activity.recorder().on() && !activity.recorder().full());
    generation(&mut activity, &mut Random(53), 1, 4, 9, 0.0);
    assert!(activity.recorder().full());
    // The four tokens of the prompt, to their last layer.
    let record = activity.recorder().record().unwrap();
    assert_eq!((record.rows(), record.tokens().len(), activity.recorder().most()), (36, 4, 30));
    activity.stop_recording();
    generation(&mut activity, &mut Random(54), 2, 4, 9, 50.0);
    assert_eq!(activity.record().rows(), 36);
    // Nothing recorded: what is kept.
    activity.start_recording(0);
    assert_eq!(activity.record().rows(), 24 * 9);
    let text = activity.trace(TraceFormat::Csv, true);
    assert_eq!(text.lines().count(), 3 + 24 * 9);
}

#[test]
fn a_replay_plays_pauses_and_seeks() {
    let (activity, record) = recorded();
    let tokens = record.tokens().len();
    let mut replay = Replay::new(Arc::new(record), Arc::clone(activity.shape()), 64);
    assert!(!replay.tick(0.0) && replay.done() == 0 && !replay.is_empty());
    replay.set_playing(true);
    replay.set_speed(2.0);
    replay.tick(100.0);
    // The prompt came at once.
    assert_eq!(replay.done(), 7);
    replay.tick(101.0);
    assert_eq!(replay.done(), 9);
    replay.set_playing(false);
    assert!(!replay.tick(200.0));
    replay.set_playing(true);
    replay.tick(300.0);
    assert_eq!(replay.done(), 9);
    let (sums, revision) = (replay.activity().sums().clone(), replay.activity().revision());
    replay.seek(30);
    assert_eq!(replay.done(), 30);
    replay.seek(9);
    assert_eq!(replay.activity().sums(), &sums);
    assert!(replay.activity().revision() > revision);
    let token = replay.activity().tokens().get(8).unwrap();
    assert_eq!((token.text.as_str(), token.id, token.phase), (" w1", 101, Phase::Answer));
    for second in 0..60 {
        replay.tick(400.0 + f64::from(second));
    }
    assert!(replay.over() && !replay.playing());
    assert_eq!(replay.done(), tokens);
    assert_eq!(replay.activity().sums(), activity.sums());
    replay.set_playing(true);
    assert_eq!(replay.done(), 0);
}
