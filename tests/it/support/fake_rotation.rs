//! A provider that rotates refresh tokens and notices when one is used again (RFC 9700 §4.14.2).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use super::{FakeServer, Received, Reply};

/// What the provider does with the next token requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Answers.
    Well,
    /// Does what it is asked to, and the answer is lost.
    Loses,
    /// Answers with this status, and does nothing.
    Down(u16),
    /// Does what it is asked to, and a gateway answers 504 in its place.
    LosesAtGateway,
}

/// A rotating provider. `first` begins a family whose tokens are `first`, `refresh-2`, `refresh-3` and so on.
#[derive(Clone)]
pub struct Rotation(Arc<Mutex<State>>);

struct State {
    /// For each request, in its turn; the last one stays.
    moods: VecDeque<Mood>,
    current: String,
    /// The token before, which a lost answer lets be used once more.
    before: Option<String>,
    issued: usize,
    presented: Vec<String>,
    reused: usize,
    /// Further fields of the answer.
    fields: String,
}

impl Rotation {
    pub fn new(first: &str) -> Self {
        Self(Arc::new(Mutex::new(State {
            moods: [Mood::Well].into(),
            current: first.into(),
            before: None,
            issued: 1,
            presented: Vec::new(),
            reused: 0,
            fields: String::new(),
        })))
    }

    /// Serves it. Access token `token-N` comes with refresh token `refresh-N`.
    pub fn serve(&self) -> FakeServer {
        let rotation = self.clone();
        FakeServer::start(move |request| rotation.answer(request))
    }

    /// What it does with the requests to come, one by one; the last one stays.
    pub fn moods(&self, moods: impl IntoIterator<Item = Mood>) {
        self.state().moods = moods.into_iter().collect();
    }

    /// From now on each answer has these fields too.
    pub fn fields(&self, fields: &str) {
        self.state().fields = fields.into();
    }

    /// Accepts this one instead of what it has issued.
    pub fn accept(&self, token: &str) {
        self.state().current = token.into();
    }

    /// The refresh tokens that were presented, in their order; for other grants, their name.
    pub fn presented(&self) -> Vec<String> {
        self.state().presented.clone()
    }

    /// How often a token that had been replaced was presented.
    pub fn reused(&self) -> usize {
        self.state().reused
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn answer(&self, request: &Received) -> Reply {
        let form: Vec<_> = form_urlencoded::parse(&request.body).into_owned().collect();
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let mut state = self.state();
        let by_token = field("grant_type").unwrap() == "refresh_token";
        let shown = if by_token { field("refresh_token").unwrap() } else { field("grant_type").unwrap() };
        state.presented.push(shown.clone());
        let mood = if state.moods.len() > 1 { state.moods.pop_front() } else { state.moods.front().copied() };
        if let Some(Mood::Down(status)) = mood {
            return Reply::text(status, "");
        }
        if by_token && shown != state.current {
            let spent = state.before.as_ref() != Some(&shown);
            state.reused += usize::from(spent && shown.starts_with("refresh-"));
            if spent {
                return Reply::json(400, "{\"error\":\"invalid_grant\"}");
            }
        }
        state.issued += 1;
        let number = state.issued;
        let lost = matches!(mood, Some(Mood::Loses | Mood::LosesAtGateway));
        state.before = lost.then_some(shown);
        state.current = format!("refresh-{number}");
        let answer = Reply::json(
            200,
            &format!(
                "{{\"access_token\":\"token-{number}\",\"token_type\":\"Bearer\",\"expires_in\":3600,\
                 \"refresh_token\":\"{}\"{}}}",
                state.current, state.fields
            ),
        );
        match mood {
            Some(Mood::Loses) => Reply::nothing(),
            Some(Mood::LosesAtGateway) => Reply::text(504, ""),
            _ => answer,
        }
    }
}
