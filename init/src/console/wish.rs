//! What a person wishes for at the dashboard, and the passphrase that it takes.

use super::access::{Attempts, Secret};
use super::dashboard::{Command, Dashboard, Gate, Wish};
use super::keys::Key;

impl Dashboard {
    /// A key that changes something.
    pub(super) fn wish(&mut self, key: u8, now: u64, attempts: &Attempts) -> Option<Command> {
        if self.containers == 0 {
            return None;
        }
        let wish = Wish { key, container: self.selected() };
        match self.gate {
            Gate::Shut => self.tell("this console only shows: console.access is \"status\"", now),
            Gate::Checking(_) => self.tell("the passphrase is being checked", now),
            Gate::Open => return command(wish),
            Gate::Asked(..) => {}
            Gate::Locked => match attempts.wait_ms(now) {
                0 => {
                    self.message = None;
                    self.gate = Gate::Asked(Secret::default(), wish);
                }
                wait => self.tell(&format!("ask again in {} s", wait.div_ceil(1000)), now),
            },
        }
        None
    }

    /// A key of the passphrase.
    pub(super) fn typed(&mut self, key: Key, now: u64, attempts: &mut Attempts) -> Option<Command> {
        let Gate::Asked(secret, wish) = &mut self.gate else { return None };
        match key {
            Key::Char(byte) => secret.push(byte),
            Key::Erase => secret.pop(),
            Key::Control(b'u') => *secret = Secret::default(),
            Key::Control(b'l') => return Some(Command::Redraw),
            Key::Esc | Key::Control(b'c') => self.gate = Gate::Locked,
            Key::Enter => {
                let (secret, wish) = (std::mem::take(secret), *wish);
                if secret.bytes().is_empty() {
                    self.gate = Gate::Locked;
                    return None;
                }
                attempts.begin(now);
                self.gate = Gate::Checking(wish);
                return Some(Command::Check(secret));
            }
            _ => {}
        }
        None
    }

    /// What became of [`Command::Check`]: it was the passphrase, it wasn't, or (`None`) that could not be found out. What was
    /// wished for is to be done then.
    pub fn checked(&mut self, right: Option<bool>, now: u64) -> Option<Command> {
        let Gate::Checking(wish) = self.gate else { return None };
        self.gate = if right == Some(true) { Gate::Open } else { Gate::Locked };
        match right {
            Some(true) => return command(wish),
            Some(false) => self.tell("that is not the passphrase", now),
            None => self.tell("the passphrase could not be checked", now),
        }
        None
    }
}

fn command(wish: Wish) -> Option<Command> {
    let index = wish.container;
    Some(match wish.key {
        b'r' => Command::Restart(index),
        b's' => Command::Stop(index),
        b'S' | b'a' => Command::Start(index),
        b'x' => Command::Shell(index),
        _ => return None,
    })
}
