use proptest::prelude::*;

use super::*;

const LINE: usize = 1_000;

/// Puts lines until the source has no room.
fn fill(queue: &mut Queue<u32>, source: SourceId, now: Instant) -> u32 {
    let mut count = 0;
    while queue.may_write(source, || now) {
        assert!(queue.put(source, LINE, count, || now));
        count += 1;
    }
    count
}

fn dropped(source: &str, lines: u64) -> Vec<Dropped> {
    vec![Dropped { source: source.into(), lines }]
}

#[test]
fn lines_leave_in_the_order_in_which_they_came() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    let (web, worker) = (queue.source("web".into()), queue.source("worker".into()));
    for (source, item) in [(web, 1), (worker, 2), (web, 3)] {
        assert!(queue.put(source, LINE, item, || now));
    }
    let taken: Vec<_> = std::iter::from_fn(|| queue.take(now)).collect();
    assert_eq!(taken, [(web, 1), (worker, 2), (web, 3)]);
    assert!(queue.is_empty() && !queue.has_dropped());
}

#[test]
fn a_line_waits_for_no_more_than_a_round_of_each_other_source() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    let floods: Vec<_> = (0..8).map(|number| queue.source(format!("flood{number}"))).collect();
    let quiet = queue.source("quiet".into());
    for source in &floods {
        fill(&mut queue, *source, now);
    }
    assert!(queue.put(quiet, LINE, 0, || now));
    let before = std::iter::from_fn(|| queue.take(now)).take_while(|(source, _)| *source != quiet).count();
    let round = ROUND_BYTES / (LINE + LINE_BYTES) + 1;
    assert!(before <= 8 * round, "{before} lines");
    // Also where it writes in the middle of a round, and where a flood has written for long.
    for _ in 0..100 {
        for source in &floods {
            fill(&mut queue, *source, now);
        }
        for _ in 0..round / 2 {
            queue.take(now);
        }
        assert!(queue.put(quiet, LINE, 0, || now));
        let before =
            std::iter::from_fn(|| queue.take(now)).take_while(|(source, _)| *source != quiet).count();
        assert!(before <= 8 * round, "{before} lines");
    }
}

#[test]
fn a_source_whose_lines_have_all_left_writes_as_one_that_wrote_nothing() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    let (web, worker) = (queue.source("web".into()), queue.source("worker".into()));
    assert!(queue.put(web, ROUND_BYTES + 7_000, 0, || now));
    assert_eq!(queue.take(now), Some((web, 0)));
    // These are less than a round, and would be more with the rest of the first line.
    for (source, bytes, item) in [(web, 26_000, 1), (web, 2_000, 2), (worker, 10, 3)] {
        assert!(queue.put(source, bytes, item, || now));
    }
    let taken: Vec<_> = std::iter::from_fn(|| queue.take(now)).map(|(_, item)| item).collect();
    assert_eq!(taken, [1, 2, 3]);
}

#[test]
fn floods_get_the_same_share_of_the_stream() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    let sources = [queue.source("long".into()), queue.source("short".into())];
    let lines = [16_000, 20];
    let mut bytes = [0; 2];
    for _ in 0..200_000 {
        for (source, line) in sources.iter().zip(lines) {
            while queue.may_write(*source, || now) {
                assert!(queue.put(*source, line, 0, || now));
            }
        }
        let (source, _) = queue.take(now).unwrap();
        bytes[source.0] += lines[source.0] + LINE_BYTES;
    }
    let [long, short] = bytes;
    assert!(long.abs_diff(short) <= 2 * (ROUND_BYTES + 16_100), "{long} and {short} bytes");
}

#[test]
fn a_source_that_is_full_waits_for_a_second_and_then_its_lines_are_dropped() {
    let (mut queue, start) = (Queue::new(), Instant::now());
    let (web, worker) = (queue.source("web".into()), queue.source("worker".into()));
    fill(&mut queue, web, start);
    assert_eq!(queue.waits_until(web), Some(start + WAIT_MAX));
    // One that was told that there is room may use it.
    assert!(queue.put(web, LINE, 0, || start));
    let late = start + WAIT_MAX;
    assert!(queue.may_write(web, || late) && !queue.put(web, LINE, 0, || late));
    // The other type goes on.
    assert!(queue.may_write(worker, || late) && queue.put(worker, LINE, 0, || late));
    // The stream takes some: there is room again.
    while queue.waits_until(web).is_some() {
        queue.take(late);
    }
    assert!(queue.may_write(web, || late) && queue.put(web, LINE, 0, || late));
    assert_eq!(queue.tell(false, late + TOLD_AFTER), dropped("web", 1));
}

#[test]
fn a_stream_that_takes_something_is_waited_for() {
    let (mut queue, start) = (Queue::new(), Instant::now());
    let web = queue.source("web".into());
    fill(&mut queue, web, start);
    let mut now = start;
    for _ in 0..5 {
        now += WAIT_MAX / 2;
        queue.take(now);
        fill(&mut queue, web, now);
        assert!(!queue.may_write(web, || now));
    }
    assert!(!queue.has_dropped());
}

#[test]
fn what_goes_on_is_told_once_a_minute_and_what_is_over_at_once() {
    let (mut queue, start) = (Queue::new(), Instant::now());
    let web = queue.source("web".into());
    fill(&mut queue, web, start);
    let mut now = start + WAIT_MAX;
    assert!(!queue.put(web, LINE, 0, || now));
    assert_eq!(queue.tell(false, now), []);
    now += TOLD_AFTER;
    assert!(!queue.put(web, LINE, 0, || now));
    assert_eq!(queue.tell(false, now), dropped("web", 2));
    assert!(!queue.put(web, LINE, 0, || now));
    now += TOLD_AFTER;
    assert_eq!(queue.tell(false, now), []);
    assert_eq!(queue.tell(false, now + TOLD_EVERY), dropped("web", 1));
    assert!(!queue.put(web, LINE, 0, || now));
    while queue.take(now).is_some() {}
    assert_eq!(queue.tell(true, now + TOLD_AFTER), []);
    assert_eq!(queue.tell(false, now + TOLD_AFTER), dropped("web", 1));
    assert!(!queue.has_dropped());
}

#[test]
fn what_is_left_at_the_end_is_counted() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    let web = queue.source("web".into());
    let count = fill(&mut queue, web, now);
    queue.lose_all(now);
    assert!(queue.is_empty());
    assert_eq!(queue.tell_all(now), dropped("web", u64::from(count)));
}

proptest! {
    #[test]
    fn lines_of_a_source_keep_their_order_and_all_do_where_there_is_no_flood(
        steps in prop::collection::vec((0_usize..4, 0_usize..20_000), 0..300),
    ) {
        let (mut queue, now) = (Queue::new(), Instant::now());
        let sources = [0, 1, 2].map(|number| queue.source(number.to_string()));
        // The bytes of each that wait, and those that it wrote since nothing waited.
        let (mut held, mut wrote) = ([0; 3], [0; 3]);
        let mut last = [None; 3];
        let (mut last_of_all, mut was_flood) = (None, false);
        for (number, (what, bytes)) in steps.into_iter().enumerate() {
            match sources.get(what) {
                Some(source) => {
                    prop_assert!(queue.put(*source, bytes, (number, bytes), || now) || held[what] >= HELD_BYTES_MAX);
                    held[what] += bytes + LINE_BYTES;
                    wrote[what] += bytes + LINE_BYTES;
                    was_flood |= wrote[what] >= ROUND_BYTES;
                }
                None => {
                    let Some((source, (number, bytes))) = queue.take(now) else { continue };
                    prop_assert!(last[source.0] < Some(number));
                    last[source.0] = Some(number);
                    prop_assert!(was_flood || last_of_all < Some(number));
                    last_of_all = Some(number);
                    held[source.0] -= bytes + LINE_BYTES;
                    if queue.is_empty() {
                        (wrote, was_flood) = ([0; 3], false);
                    }
                }
            }
        }
    }

    #[test]
    fn every_line_is_taken_or_counted_and_a_source_is_bounded(
        steps in prop::collection::vec((0_usize..3, 0_usize..200_000, 0_u64..700), 0..200),
    ) {
        let (mut queue, mut now) = (Queue::new(), Instant::now());
        let sources = [queue.source("a".into()), queue.source("b".into())];
        let (mut put, mut taken) = (0_u64, 0_u64);
        for (what, bytes, ms) in steps {
            now += Duration::from_millis(ms);
            match sources.get(what) {
                Some(source) => {
                    queue.put(*source, bytes, (), || now);
                    put += 1;
                }
                None => taken += u64::from(queue.take(now).is_some()),
            }
            for of in &queue.sources {
                prop_assert!(of.held_bytes < HELD_BYTES_MAX + 200_000 + LINE_BYTES);
                prop_assert!(of.full_since.is_some() || of.held_bytes < ROOM_BYTES);
            }
        }
        while queue.take(now).is_some() {
            taken += 1;
        }
        let in_all = sources.map(|source| queue.dropped(source)).iter().sum::<u64>();
        let dropped: u64 = queue.tell_all(now).iter().map(|dropped| dropped.lines).sum();
        prop_assert_eq!(dropped, in_all);
        prop_assert_eq!(put, taken + dropped);
    }
}
