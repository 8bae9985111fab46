use super::*;

fn key(n: usize) -> Bytes {
    Bytes::from(format!("customer-{n}"))
}

const DOWN: Option<&str> = Some("the endpoint answered 503");

fn open(now: Instant) -> Breaker {
    let mut breaker = Breaker::default();
    for n in 0..CALLS {
        let ticket = breaker.admit(now).expect("all is well");
        assert!(breaker.note(ticket, &key(n), DOWN, now), "a failure of the window counts");
    }
    assert!(breaker.outage.is_some());
    breaker
}

/// Runs one probe per outcome, each for a key of its own.
fn round(breaker: &mut Breaker, now: Instant, outcomes: &[bool]) {
    let tickets: Vec<_> = outcomes.iter().map(|_| breaker.admit(now).expect("it may find out")).collect();
    for (n, (ticket, good)) in tickets.into_iter().zip(outcomes).enumerate() {
        breaker.note(ticket, &key(n), if *good { None } else { DOWN }, now);
    }
}

#[test]
fn twelve_failures_over_three_keys_pause_all_calls_for_a_second() {
    let now = Instant::now();
    let mut breaker = open(now);
    assert_eq!((breaker.admit(now), breaker.paused(now)), (None, Some(FIRST)));
    let outage = breaker.outage_now().expect("an outage");
    assert_eq!((outage.since, outage.probe_at), (now, now + FIRST));
    assert_eq!(outage.why, "12 of the latest 12 calls failed, of 12 keys; the last: the endpoint answered 503");
    assert_eq!(breaker.paused(now + FIRST), None, "then some find out");
}

#[test]
fn one_failing_key_is_no_outage() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    for n in 0..100 {
        assert!(breaker.note(None, &key(n % 2), DOWN, now));
    }
    assert_eq!(breaker.admit(now), Some(None));
}

#[test]
fn calls_that_fail_at_times_are_no_outage_and_old_ones_tell_nothing() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    (0..100).for_each(|n| _ = breaker.note(None, &key(n), DOWN.filter(|_| n % 6 != 0), now));
    assert!(breaker.outage.is_none(), "one call in six is well");
    let mut breaker = Breaker::default();
    for n in 0..100_u32 {
        breaker.note(None, &key(n as usize), DOWN, now + RECENT / 10 * n);
    }
    assert!(breaker.outage.is_none(), "never twelve calls in a minute");
}

#[test]
fn five_calls_find_out_and_most_of_them_decide() {
    let mut now = Instant::now();
    for (outcomes, ends) in [
        (&[true, true, true][..], true),
        (&[false, true, false, true, true], true),
        (&[true, false, true, false, false], false),
        (&[false, false, false], false),
    ] {
        let mut breaker = open(now);
        now += FIRST;
        round(&mut breaker, now, outcomes);
        assert_eq!(breaker.outage.is_none(), ends, "{outcomes:?}");
    }
    let mut breaker = open(now);
    now += FIRST;
    let tickets: Vec<_> = (0..PROBES).map(|_| breaker.admit(now).expect("it may find out")).collect();
    assert_eq!((breaker.admit(now), breaker.paused(now), breaker.room()), (None, None, Some(PROBES)), "the others wait");
    breaker.give_back(tickets[0]);
    assert!(breaker.admit(now).is_some(), "one that has gone without a word makes room");
}

#[test]
fn pauses_grow_while_nothing_succeeds() {
    let mut now = Instant::now();
    let mut breaker = open(now);
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        assert_eq!(breaker.paused(now), Some(Duration::from_secs(seconds)));
        now += Duration::from_secs(seconds);
        round(&mut breaker, now, &[false, false, false]);
    }
    now += LONGEST;
    round(&mut breaker, now, &[true, false, false, false]);
    assert_eq!(breaker.paused(now), Some(FIRST), "it answers some: soon most of them may be well");
}

#[test]
fn where_only_one_key_waits_it_decides_alone() {
    let mut now = Instant::now();
    let mut breaker = open(now);
    now += FIRST;
    round(&mut breaker, now, &[true]);
    assert!(breaker.outage.is_some(), "others may wait, too");
    assert_eq!((breaker.paused(now + ROUND), breaker.outage.is_none()), (None, true));
    let mut breaker = open(now);
    now += FIRST;
    round(&mut breaker, now, &[false]);
    now += ROUND;
    assert_eq!(breaker.paused(now), Some(FIRST * 2));
}

#[test]
fn what_fails_in_an_outage_uses_up_no_attempt_unless_the_endpoint_answers_others() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    let under_way = breaker.admit(now).expect("all is well");
    (0..CALLS).for_each(|n| _ = breaker.note(None, &key(n), DOWN, now));
    assert!(!breaker.note(under_way, &key(90), DOWN, now), "it was under way when calls paused");
    let now = now + FIRST;
    let [one, two, three] = [0; 3].map(|_| breaker.admit(now).expect("it may find out"));
    assert!(!breaker.note(one, &key(1), DOWN, now));
    breaker.note(two, &key(2), None, now);
    assert!(breaker.note(three, &key(3), DOWN, now), "now it is the order that fails");
}

#[test]
fn an_event_that_fails_alone_while_all_others_are_gone_does_not_wait_for_ever() {
    let began = Instant::now();
    let (mut breaker, mut now, mut calls) = (open(began), began, 0);
    while let Some(outage) = breaker.outage_now() {
        now = outage.probe_at;
        let ticket = breaker.admit(now).expect("it may find out");
        breaker.note(ticket, &key(calls % 2), DOWN, now);
        now += ROUND;
        breaker.paused(now);
        calls += 1;
    }
    assert!(
        (IN_VAIN..IN_VAIN + LONGEST * 2).contains(&(now - began)),
        "two keys tell nothing of the endpoint: {:?}",
        now - began
    );
    assert!(breaker.note(None, &key(1), DOWN, now), "attempts count again");
}

#[test]
fn a_call_that_was_to_find_out_and_panics_leaves_that_to_the_next() {
    let breaker = Mutex::new(open(Instant::now()));
    let later = Instant::now() + FIRST;
    for _ in 0..=PROBES {
        let panics = std::panic::catch_unwind(|| {
            let _permit = Permit::ask(&breaker, later).expect("it may find out");
            panic!("out of paper");
        });
        assert!(panics.is_err());
    }
    let probe = Permit::ask(&breaker, later).expect("the next one finds out");
    assert!(!probe.note(&key(1), DOWN, later));
}
