//! The rules for a device behind a broker, one scenario each, on a virtual clock.

mod hands;
mod link;
mod off;
mod sensors;
mod stock;
mod trust;

use super::broker_world::BrokerWorld;
use super::peer::Kind;
use super::*;
use crate::dialect::mqtt::{Options, Role};
use crate::sim::esphome::{BangBang, Discovery, Platform, Setup, Thermostat};

const TARGET_45: &str = "panda-breath/climate/chamber/target_temperature/command 45";
const HEAT: &str = "panda-breath/climate/chamber/mode/command heat";
const OFF: &str = "panda-breath/climate/chamber/mode/command off";

fn config() -> Config {
    Config {
        host: "192.0.2.20".into(),
        port: 1883,
        mqtt: Some(Options {
            dialect: Some(Dialect::Esphome),
            ..Options::default()
        }),
        ..Config::default()
    }
}

fn esphome() -> Kind {
    Kind::Esphome(Box::default())
}

fn connected() -> BrokerWorld {
    BrokerWorld::connected(config(), &esphome())
}

fn heating() -> BrokerWorld {
    BrokerWorld::heating(config(), &esphome())
}

const STOCK_OFF: &str = r#"{"work_on":"OFF"}"#;

fn stock_config() -> Config {
    Config {
        mqtt: Some(Options {
            dialect: Some(Dialect::StockMqtt),
            ..Options::default()
        }),
        ..config()
    }
}

fn payloads(world: &BrokerWorld) -> Vec<&str> {
    let texts = world.texts().into_iter();
    texts.map(|text| text.split_once(' ').unwrap().1).collect()
}

fn bang_bang() -> Kind {
    Kind::Esphome(Box::new(Setup {
        platform: Platform::BangBang(BangBang::default()),
        ..Setup::default()
    }))
}

/// A thermostat whose element runs for so many seconds at least.
fn long_run(seconds: f64) -> Kind {
    Kind::Esphome(Box::new(Setup {
        platform: Platform::Thermostat(Thermostat {
            min_run_s: seconds,
            ..Thermostat::default()
        }),
        ..Setup::default()
    }))
}

/// A thermostat that boots into the mode that it has saved.
fn restoring() -> Kind {
    Kind::Esphome(Box::new(Setup {
        platform: Platform::Thermostat(Thermostat {
            restores: true,
            ..Thermostat::default()
        }),
        ..Setup::default()
    }))
}
