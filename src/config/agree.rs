//! What sections must agree on: no part sees more than its own.

use super::{Config, check::nearest};
use crate::{invalid::Invalid, listen::Listen, proxy::NO_CREDENTIAL};

impl Config {
    /// Checks listeners against each other, credentials against the routes that name them, and the log's filter.
    pub fn check(&self) -> Result<(), Invalid> {
        self.log.check().map_err(|mistake| mistake.under("log"))?;
        self.check_listeners()?;
        self.check_credentials()
    }

    fn check_listeners(&self) -> Result<(), Invalid> {
        let own = self.routes.iter().filter_map(|(name, route)| {
            route.listen.as_ref().map(|listen| (format!("routes.{name}.listen"), listen))
        });
        let all = [
            ("proxy.listen".to_owned(), &self.proxy.listen),
            ("admin.listen".to_owned(), &self.admin.listen),
        ];
        let mut known: Vec<(String, Listen)> = Vec::new();
        for (key, listen) in all.into_iter().chain(own) {
            let section = key.trim_end_matches(".listen");
            let listen = Listen::parse(listen).map_err(|mistake| mistake.under(section))?;
            for (other, taken) in &known {
                // Several routes may share a listener; the admin port is always by itself.
                let shared = *taken == listen && ![&key, other].contains(&&"admin.listen".to_owned());
                if !shared && taken.collides_with(&listen) {
                    let message = format!("this is the listener of `{other}` already");
                    return Err(Invalid::new(key, message).hint("give it another port or path"));
                }
            }
            known.push((key, listen));
        }
        Ok(())
    }

    fn check_credentials(&self) -> Result<(), Invalid> {
        let names = || self.credentials.keys().map(String::as_str);
        if self.credentials.contains_key(NO_CREDENTIAL) {
            let key = format!("credentials.{NO_CREDENTIAL}");
            return Err(Invalid::new(
                key,
                "no credential can be called that: it is what routes without one say",
            )
            .hint("give it another name"));
        }
        for (route, config) in &self.routes {
            if config.credential != NO_CREDENTIAL && !self.credentials.contains_key(&config.credential) {
                let mistake =
                    Invalid::new(format!("routes.{route}.credential"), "no such credential is defined");
                return Err(match nearest(&config.credential, names()) {
                    Some(near) => mistake.hint(format!("did you mean `{near}`?")),
                    None => mistake.hint("add a section `[credentials.NAME]` with that name"),
                });
            }
        }
        Ok(())
    }
}
