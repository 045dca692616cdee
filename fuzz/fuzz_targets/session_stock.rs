//! A whole session of dialect `stock`; see `world`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use panda_breath_fuzz::dialect::Dialect;
use panda_breath_fuzz::world::World;

fuzz_target!(|data: &[u8]| World::play(Dialect::Stock, data));
