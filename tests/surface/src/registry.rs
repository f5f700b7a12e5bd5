// SPDX-License-Identifier: MIT OR Apache-2.0

//! Registry keys: all types of values, subkeys, lists.

use dmf::prelude::*;
use dmf::registry::{Access, Key, Lifetime, ValueType};
use dmf::unicode_string;

use crate::Surface;
use crate::tell::Teller;

pub fn registry(_: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let key = Key::parameters(irql, Access::All)?;
    tell.value("nothing yet", key.query_u32(unicode_string!("Number")));
    tell.value("number", key.assign_u32(unicode_string!("Number"), 7));
    tell.value("read", key.query_u32(unicode_string!("number")));
    tell.value("wide", key.assign_u64(unicode_string!("Wide"), u64::MAX));
    tell.value("read", key.query_u64(unicode_string!("Wide")));
    tell.value("narrow", key.query_u32(unicode_string!("Wide")));
    tell.value(
        "bytes",
        key.assign_binary(unicode_string!("Bytes"), &[1, 2, 3]),
    );
    tell.value("read", key.query_binary(unicode_string!("Bytes")));
    let text = unicode_string!("Grüße");
    tell.value("string", key.assign_string(unicode_string!("Text"), text));
    tell.value("read", key.query_string(unicode_string!("Text")));
    let path = unicode_string!(r"%SystemRoot%\x");
    tell.value(
        "path",
        key.assign_expand_string(unicode_string!("Path"), path),
    );
    tell.value("read", key.query_string(unicode_string!("Path")));
    let strings = [unicode_string!("a"), unicode_string!("bc")];
    tell.value(
        "strings",
        key.assign_strings(unicode_string!("List"), &strings),
    );
    match key.query_strings(unicode_string!("List")) {
        Ok(list) => list.iter().for_each(|text| tell.value("one", text)),
        Err(error) => tell.value("read", error),
    }
    tell.value(
        "not a list",
        key.query_strings(unicode_string!("Text")).err(),
    );
    tell.value(
        "any type",
        key.assign(
            unicode_string!("Big"),
            ValueType::U32_BIG_ENDIAN,
            &[0, 0, 1, 2],
        ),
    );
    tell.value("read", key.query(unicode_string!("Big")));
    tell.value(
        "the unnamed",
        key.assign(unicode_string!(""), ValueType::NONE, &[]),
    );
    for value in key.values() {
        tell.value("value", value);
    }
    tell.value("gone", key.delete_value(unicode_string!("Wide")));
    tell.value("gone already", key.delete_value(unicode_string!("Wide")));

    let below = key.create(unicode_string!("Below"), Access::All, Lifetime::Persistent)?;
    let more = below.create(unicode_string!("More"), Access::All, Lifetime::Volatile)?;
    more.assign_u32(unicode_string!("X"), 1)?;
    drop(more);
    tell.value(
        "a stable key below a volatile one",
        below
            .open(unicode_string!("More"), Access::All)
            .and_then(|more| {
                more.create(unicode_string!("Y"), Access::All, Lifetime::Persistent)
                    .map(drop)
            }),
    );
    for name in below.subkeys() {
        tell.value("subkey", name);
    }
    tell.value(
        "not there",
        key.open(unicode_string!("Above"), Access::Read).err(),
    );
    let reader = key.open(unicode_string!("Below"), Access::Read)?;
    tell.value("only to read", reader.assign_u32(unicode_string!("X"), 1));
    drop(reader);
    tell.value(
        "the inner one",
        below
            .open(unicode_string!("More"), Access::All)
            .and_then(Key::delete),
    );
    tell.value("deleted", below.delete());
    tell.value("subkeys left", key.subkeys().count());
    drop(key);

    match Key::persistent_state(irql, Access::All) {
        Ok(key) => {
            let starts = key.query_u32(unicode_string!("Runs")).unwrap_or(0);
            tell.value("runs", starts);
            tell.value("run", key.assign_u32(unicode_string!("Runs"), starts + 1));
        }
        Err(status) => tell.value("no persistent state", status),
    }
    Ok(())
}
