// SPDX-License-Identifier: MIT OR Apache-2.0

//! What programs get from the mailbox, with the driver linked into the test.

#[path = "support/plan.rs"]
mod plan;

use dmf::ioctl::IoctlData;
use mailbox::interface::{self, CAPACITY, MESSAGE_SIZE, Statistics};
use plan::{
    BUFFER_OVERFLOW, BUFFER_TOO_SMALL, Box, CANCELLED, FrontEnd, INSUFFICIENT_RESOURCES,
    INVALID_PARAMETER, NOT_SUPPORTED, SUCCESS, whole_life,
};

const SEEDS: u64 = 32;

/// Runs a test on a new machine under each seed.
fn each(test: impl Fn(&mut Box)) {
    for seed in 0..SEEDS {
        test(&mut Box::started(&FrontEnd::Host, seed));
    }
}

#[test]
fn messages_come_in_the_order_in_which_they_were_posted() {
    each(|mailbox| {
        let file = mailbox.open();
        for text in [b"one", b"two", b"six"] {
            assert_eq!(mailbox.write(file, text), SUCCESS);
        }
        for text in [b"one", b"two", b"six"] {
            assert_eq!(mailbox.read(file), text);
        }
        mailbox.close(file);
        mailbox.remove();
    });
}

#[test]
fn a_read_waits_for_a_message() {
    each(|mailbox| {
        let file = mailbox.open();
        let read = mailbox.begin_read(file, MESSAGE_SIZE);
        assert!(mailbox.ended(read).is_none());
        assert_eq!(mailbox.write(file, b"at last"), SUCCESS);
        assert_eq!(mailbox.end_of(read).data, b"at last");
    });
}

#[test]
fn a_read_that_waits_can_be_cancelled_and_takes_no_message() {
    each(|mailbox| {
        let file = mailbox.open();
        let read = mailbox.begin_read(file, MESSAGE_SIZE);
        mailbox.cancel(read);
        let end = mailbox.end_of(read);
        assert_eq!((end.status, end.information), (CANCELLED, 0));
        assert_eq!(mailbox.write(file, b"left"), SUCCESS);
        assert_eq!(mailbox.read(file), b"left");
    });
}

#[test]
fn a_cancelled_read_and_a_message_lose_nothing_between_them() {
    each(|mailbox| {
        let file = mailbox.open();
        let read = mailbox.begin_read(file, MESSAGE_SIZE);
        assert_eq!(mailbox.write(file, b"race"), SUCCESS);
        mailbox.cancel(read);
        let end = mailbox.end_of(read);
        // Either the read got it, or it is still in the box.
        let held = mailbox.statistics(file).held;
        assert_eq!(held, u32::from(end.status == CANCELLED), "{}", end.status);
    });
}

#[test]
fn closing_the_file_cancels_its_reads() {
    each(|mailbox| {
        let file = mailbox.open();
        let read = mailbox.begin_read(file, MESSAGE_SIZE);
        mailbox.close(file);
        assert_eq!(mailbox.end_of(read).status, CANCELLED);
        mailbox.remove();
    });
}

#[test]
fn a_short_buffer_gets_what_fits() {
    each(|mailbox| {
        let file = mailbox.open();
        assert_eq!(mailbox.write(file, b"long message"), SUCCESS);
        let read = mailbox.begin_read(file, 4);
        let end = mailbox.end_of(read);
        assert_eq!(
            (end.status, end.data.as_slice()),
            (BUFFER_OVERFLOW, &b"long"[..])
        );
    });
}

#[test]
fn a_message_that_is_too_long_and_one_too_many_are_refused() {
    each(|mailbox| {
        let file = mailbox.open();
        assert_eq!(
            mailbox.write(file, &[b'x'; MESSAGE_SIZE + 1]),
            INVALID_PARAMETER
        );
        for _ in 0..CAPACITY {
            assert_eq!(mailbox.write(file, b"x"), SUCCESS);
        }
        assert_eq!(mailbox.write(file, b"x"), INSUFFICIENT_RESOURCES);
        let answer = mailbox.ioctl(file, interface::CLEAR.value(), &[], 4);
        assert_eq!((answer.status, u32::get(&answer.data)), (SUCCESS, 8));
        assert_eq!(mailbox.write(file, b"x"), SUCCESS);
    });
}

#[test]
fn a_limit_must_be_in_range() {
    each(|mailbox| {
        let file = mailbox.open();
        let code = interface::SET_LIMIT.value();
        for (limit, status) in [
            (0_u32, INVALID_PARAMETER),
            (9, INVALID_PARAMETER),
            (u32::MAX, INVALID_PARAMETER),
            (1, SUCCESS),
        ] {
            let answer = mailbox.ioctl(file, code, &limit.to_ne_bytes(), 0);
            assert_eq!(answer.status, status, "{limit}");
        }
        assert_eq!(mailbox.write(file, b"x"), SUCCESS);
        assert_eq!(mailbox.write(file, b"x"), INSUFFICIENT_RESOURCES);
    });
}

#[test]
fn ioctl_buffers_that_are_too_short_and_unknown_codes_are_refused() {
    each(|mailbox| {
        let file = mailbox.open();
        let statistics = interface::GET_STATISTICS.value();
        for length in 0..Statistics::SIZE {
            let answer = mailbox.ioctl(file, statistics, &[], length);
            assert_eq!(answer.status, BUFFER_TOO_SMALL, "{length}");
        }
        let limit = interface::SET_LIMIT.value();
        for length in 0..4 {
            let answer = mailbox.ioctl(file, limit, &[0; 4][..length], 0);
            assert_eq!(answer.status, BUFFER_TOO_SMALL, "{length}");
        }
        let answer = mailbox.ioctl(file, 0x0022_3FFC, &[], 64);
        assert_eq!(answer.status, NOT_SUPPORTED);
    });
}

#[test]
fn statistics_count() {
    each(|mailbox| {
        let file = mailbox.open();
        assert_eq!(mailbox.write(file, b"a"), SUCCESS);
        assert_eq!(mailbox.write(file, b"b"), SUCCESS);
        mailbox.read(file);
        let Statistics {
            posted,
            delivered,
            held,
            limit,
        } = mailbox.statistics(file);
        assert_eq!((posted, delivered, held, limit), (2, 1, 1, 8));
    });
}

#[test]
fn messages_survive_a_power_cycle_and_counters_do_not() {
    each(|mailbox| {
        let file = mailbox.open();
        assert_eq!(mailbox.write(file, b"kept"), SUCCESS);
        mailbox.power_cycle();
        let statistics = mailbox.statistics(file);
        assert_eq!((statistics.posted, statistics.held), (0, 1));
        assert_eq!(mailbox.read(file), b"kept");
    });
}

#[test]
fn a_read_waits_through_a_power_cycle() {
    each(|mailbox| {
        let file = mailbox.open();
        let read = mailbox.begin_read(file, MESSAGE_SIZE);
        mailbox.power_cycle();
        assert!(mailbox.ended(read).is_none());
        assert_eq!(mailbox.write(file, b"later"), SUCCESS);
        assert_eq!(mailbox.end_of(read).data, b"later");
    });
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-idle-power-down>
#[test]
fn a_silent_mailbox_sleeps_even_while_a_read_waits_and_a_request_wakes_it() {
    each(|mailbox| {
        let file = mailbox.open();
        let read = mailbox.begin_read(file, MESSAGE_SIZE);
        assert!(mailbox.is_awake());
        mailbox.be_silent();
        assert!(!mailbox.is_awake());
        assert_eq!(mailbox.write(file, b"good morning"), SUCCESS);
        assert!(mailbox.is_awake());
        assert_eq!(mailbox.end_of(read).data, b"good morning");

        mailbox.be_silent();
        assert!(!mailbox.is_awake());
        assert_eq!(mailbox.statistics(file).posted, 0, "the counters slept");
        assert!(mailbox.is_awake());
    });
}

#[test]
fn a_read_that_waits_can_be_cancelled_while_the_mailbox_sleeps() {
    each(|mailbox| {
        let file = mailbox.open();
        let read = mailbox.begin_read(file, MESSAGE_SIZE);
        mailbox.be_silent();
        mailbox.cancel(read);
        assert_eq!(mailbox.end_of(read).status, CANCELLED);
        assert!(!mailbox.is_awake());
        mailbox.surprise_remove();
        mailbox.close(file);
    });
}

#[test]
fn a_flush_ends_when_the_box_is_empty() {
    each(|mailbox| {
        let file = mailbox.open();
        let flush = mailbox.begin_flush(file);
        assert_eq!(mailbox.end_of(flush).status, SUCCESS);
        assert_eq!(mailbox.write(file, b"x"), SUCCESS);
        let flush = mailbox.begin_flush(file);
        assert!(mailbox.ended(flush).is_none());
        mailbox.read(file);
        assert_eq!(mailbox.end_of(flush).status, SUCCESS);
    });
}

#[test]
fn surprise_removal_ends_all_that_waits() {
    each(|mailbox| {
        let file = mailbox.open();
        let reads = [(); 3].map(|()| mailbox.begin_read(file, MESSAGE_SIZE));
        mailbox.surprise_remove();
        for read in reads {
            assert!(!mailbox.end_of(read).is_success());
        }
    });
}

#[test]
fn the_whole_life_is_the_same_twice_and_differs_between_seeds() {
    let text = |seed| {
        whole_life(&FrontEnd::Host, seed)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(text(3), text(3));
    let lives: std::collections::BTreeSet<_> = (0..10).map(text).collect();
    assert!(lives.len() > 1);
}
