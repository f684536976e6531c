use super::*;
use crate::config::parse;

const MS: u64 = NS_PER_MS;

fn queue(config: &str) -> Queue {
    let config = parse(config.as_bytes()).unwrap().config;
    Queue::new(config.limits, config.export)
}

fn item(size: usize, at_ms: u64) -> Item {
    Item { service: "s".into(), key: None, span: vec![7; size], queued_ns: at_ms * MS }
}

fn frame(items: &[Item]) -> Vec<u8> {
    items.iter().flat_map(|item| item.span.clone()).collect()
}

fn send(queue: &mut Queue, token: u32, now_ms: u64) -> Option<u64> {
    let batch = queue.next_batch(now_ms * MS, frame)?;
    let exchanges = batch.exchanges;
    queue.sent(token, batch);
    Some(exchanges)
}

fn answer(queue: &mut Queue, token: u32, answer: Answer, now_ms: u64) -> Settled {
    let batch = queue.landed(token).unwrap();
    queue.settle(batch, answer, now_ms * MS, 0)
}

fn status(status: u16) -> Answer {
    Answer::Status { status, retry_after_ms: None, rejected: 0 }
}

#[test]
fn exchanges_linger_and_then_travel_together() {
    let mut queue = queue("");
    queue.push(item(10, 0));
    queue.push(item(10, 30));
    assert_eq!(queue.wake_in_ms(30 * MS), Some(20));
    assert_eq!(send(&mut queue, 1, 49), None);
    assert_eq!(send(&mut queue, 1, 50), Some(2));
    assert_eq!((queue.exchanges(), queue.wake_in_ms(50 * MS)), (2, None));
    assert_eq!(answer(&mut queue, 1, status(200), 60), Settled::Exported { accepted: 2, rejected: 0 });
    assert!(queue.is_empty() && queue.bytes() == 0);
}

#[test]
fn a_full_batch_does_not_linger() {
    let mut queue = queue(r#"{"limits": {"batch_exchanges": 2}}"#);
    (0..3).for_each(|_| assert_eq!(queue.push(item(10, 0)), 0));
    assert_eq!(queue.wake_in_ms(0), Some(1));
    assert_eq!(send(&mut queue, 1, 0), Some(2));
    assert_eq!(send(&mut queue, 2, 0), None);
}

#[test]
fn a_batch_stays_within_its_bytes_but_one_exchange_always_fits() {
    let mut queue = queue(r#"{"limits": {"batch_bytes": 25}}"#);
    [10, 10, 10, 40].into_iter().for_each(|size| assert_eq!(queue.push(item(size, 0)), 0));
    assert_eq!(send(&mut queue, 1, 50), Some(2));
    assert_eq!(send(&mut queue, 2, 50), Some(1));
    assert_eq!(send(&mut queue, 3, 50), Some(1));
}

#[test]
fn uploads_never_mix_sessions_and_keep_the_order_of_the_rest() {
    let mut queue = queue("");
    for session in ["a", "b", "a", "c", "b"] {
        let mut item = item(1, 0);
        item.key = Some(session.into());
        queue.push(item);
    }
    let mut seen = Vec::new();
    while let Some(batch) = queue.next_batch(50 * MS, |items| {
        assert!(items.iter().all(|item| item.key == items[0].key));
        items[0].key.as_deref().unwrap().as_bytes().to_vec()
    }) {
        seen.push((batch.body.clone(), batch.exchanges));
        queue.sent(1, batch);
    }
    assert_eq!(seen, [(b"a".to_vec(), 2), (b"b".to_vec(), 2), (b"c".to_vec(), 1)]);
}

#[test]
fn a_full_queue_drops_the_oldest_that_is_not_flying() {
    let mut queue = queue(r#"{"limits": {"queue_bytes": 1024, "batch_exchanges": 1}}"#);
    queue.push(item(600, 0));
    assert_eq!(send(&mut queue, 1, 0), Some(1));
    assert_eq!(queue.push(item(400, 1)), 0);
    assert_eq!(queue.push(item(300, 2)), 1);
    assert_eq!((queue.exchanges(), queue.bytes()), (2, 900));
    assert_eq!(queue.push(item(600, 3)), 2);
    assert_eq!((queue.exchanges(), queue.bytes()), (1, 600));
}

#[test]
fn transient_failures_are_retried_one_at_a_time_with_growing_pauses() {
    let mut queue = queue(r#"{"limits": {"batch_exchanges": 1}}"#);
    queue.push(item(1, 0));
    queue.push(item(1, 0));
    assert_eq!((send(&mut queue, 1, 0), send(&mut queue, 2, 0)), (Some(1), Some(1)));
    assert_eq!(answer(&mut queue, 1, status(503), 0), Settled::Retrying { pause_ms: 500 });
    assert_eq!(answer(&mut queue, 2, Answer::None, 0), Settled::Retrying { pause_ms: 1000 });
    assert_eq!(queue.wake_in_ms(0), Some(1000));
    assert_eq!(send(&mut queue, 3, 999), None);
    assert_eq!(send(&mut queue, 3, 1000), Some(1));
    assert_eq!(send(&mut queue, 4, 1000), None);
    assert_eq!(answer(&mut queue, 3, status(200), 1001), Settled::Exported { accepted: 1, rejected: 0 });
    assert_eq!(send(&mut queue, 4, 1001), Some(1));
}

#[test]
fn pauses_are_bounded_and_jitter_shortens_them_by_half_at_most() {
    let mut queue = queue("");
    queue.failures = 60;
    assert_eq!(queue.pause_ms(None, 0), 30_000);
    for jitter in [1, 14_999, 15_000, 15_001, u32::MAX] {
        assert!((15_000..=30_000).contains(&queue.pause_ms(None, jitter)));
    }
}

#[test]
fn the_backend_may_name_the_pause() {
    let mut queue = queue("");
    queue.push(item(1, 0));
    send(&mut queue, 1, 50);
    let asked = Answer::Status { status: 429, retry_after_ms: Some(7000), rejected: 0 };
    assert_eq!(answer(&mut queue, 1, asked, 50), Settled::Retrying { pause_ms: 7000 });
    assert_eq!(queue.pause_ms(Some(u64::MAX), 0), MAX_RETRY_AFTER_MS);
}

#[test]
fn an_upload_is_given_up_at_its_age() {
    let mut queue = queue(r#"{"export": {"retry": {"max_age_ms": 1000}}}"#);
    queue.push(item(1, 0));
    send(&mut queue, 1, 50);
    assert_eq!(answer(&mut queue, 1, status(502), 999), Settled::Retrying { pause_ms: 500 });
    send(&mut queue, 2, 1500);
    let dropped = Settled::Dropped { exchanges: 1, reason: Drop::RetriesExhausted };
    assert_eq!(answer(&mut queue, 2, status(504), 1501), dropped);
    assert!(queue.is_empty());
}

#[test]
fn permanent_failures_are_dropped_with_their_reason() {
    for (code, reason) in [(400, Drop::Rejected), (401, Drop::Rejected), (500, Drop::Rejected), (413, Drop::TooLarge)] {
        let mut queue = queue("");
        queue.push(item(1, 0));
        send(&mut queue, 1, 50);
        assert_eq!(answer(&mut queue, 1, status(code), 60), Settled::Dropped { exchanges: 1, reason });
        assert!(queue.is_empty());
    }
}

#[test]
fn spans_that_a_backend_rejects_are_not_exported() {
    let mut queue = queue("");
    (0..3).for_each(|_| assert_eq!(queue.push(item(1, 0)), 0));
    send(&mut queue, 1, 50);
    let partial = Answer::Status { status: 200, retry_after_ms: None, rejected: 2 };
    assert_eq!(answer(&mut queue, 1, partial, 60), Settled::Exported { accepted: 1, rejected: 2 });
}

#[test]
fn draining_does_not_linger_and_clearing_counts_what_is_lost() {
    let mut queue = queue("");
    queue.push(item(1, 0));
    queue.drain();
    assert_eq!(send(&mut queue, 1, 0), Some(1));
    queue.push(item(1, 0));
    assert_eq!(queue.clear(), 2);
    assert_eq!((queue.exchanges(), queue.bytes(), queue.wake_in_ms(0)), (0, 0, None));
}

#[test]
fn an_answer_to_an_unknown_call_is_ignored() {
    assert!(queue("").landed(9).is_none());
}
