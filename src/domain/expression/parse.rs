//! Text to program, by precedence climbing (V. R. Pratt, POPL 1973). Mistakes name the place.

use super::{Binary, DEPTH_MAX, Expression, INPUTS_MAX, Past, Step, TEXT_MAX, TagName, Unary};
use crate::domain::ids::{AssetId, TagId};

/// An expression that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {what}")]
pub struct ExpressionError {
    /// Which character, counted from 1.
    pub at: usize,
    /// What is wrong with it.
    pub what: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    /// A number with a unit of time, in seconds.
    Seconds(f64),
    Name(String),
    /// What stood in braces.
    Braced(String),
    Sign(&'static str),
    End,
}

/// The longer signs first.
const SIGNS: [&str; 19] = [
    "<=", ">=", "==", "!=", "&&", "||", "+", "-", "*", "/", "^", "(", ")", ",", "<", ">", "!", "×",
    "·",
];

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    inputs: Vec<TagName>,
    program: Vec<Step>,
    cells: usize,
    depth: usize,
    /// Values on the stack after the program so far, and the most there were.
    height: usize,
    highest: usize,
}

/// Reads an expression.
///
/// # Errors
/// The first mistake, with its place.
pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
    if text.len() > TEXT_MAX {
        let what = format!("the expression is longer than {TEXT_MAX} bytes");
        return Err(ExpressionError { at: TEXT_MAX, what });
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        inputs: Vec::new(),
        program: Vec::new(),
        cells: 0,
        depth: 0,
        height: 0,
        highest: 0,
    };
    parser.value(0)?;
    if parser.peek() != Token::End {
        return Err(parser.wrong(format!("{} is one too many", shown(&parser.peek()))));
    }
    Ok(Expression {
        text: text.to_owned(),
        inputs: parser.inputs,
        program: parser.program,
        cells: parser.cells,
        stack: parser.highest,
    })
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text[..text.len() - rest.len()].chars().count() + 1;
        let Some(first) = rest.chars().next() else {
            tokens.push((at, Token::End));
            return Ok(tokens);
        };
        let (token, length) = if first.is_ascii_digit() || first == '.' {
            number(rest).ok_or_else(|| ExpressionError { at, what: "no number".to_owned() })?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end =
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            (word(&rest[..end]), end)
        } else if first == 'π' {
            (Token::Number(std::f64::consts::PI), first.len_utf8())
        } else if first == '{' {
            let Some(end) = rest.find('}') else {
                return Err(ExpressionError { at, what: "`{` is not closed by `}`".to_owned() });
            };
            (Token::Braced(rest[1..end].trim().to_owned()), end + 1)
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            let plain = match sign {
                "×" | "·" => "*",
                other => other,
            };
            (Token::Sign(plain), sign.len())
        } else {
            return Err(ExpressionError { at, what: format!("`{first}` has no meaning here") });
        };
        tokens.push((at, token));
        rest = &rest[length..];
    }
}

fn word(name: &str) -> Token {
    match name {
        "pi" => Token::Number(std::f64::consts::PI),
        "and" => Token::Sign("&&"),
        "or" => Token::Sign("||"),
        "not" => Token::Sign("not"),
        name => Token::Name(name.to_owned()),
    }
}

/// A number, or a duration such as `10s`, and how many bytes it takes.
fn number(text: &str) -> Option<(Token, usize)> {
    let bytes = text.as_bytes();
    let digits =
        |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let after = digits(end + 1 + sign);
        if after > end + 1 + sign {
            end = after;
        }
    }
    let value: f64 = text[..end].parse().ok()?;
    let letters = bytes[end..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let unit = match &text[end..end + letters] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Some((Token::Number(value), end)),
    };
    Some((Token::Seconds(value * unit), end + letters))
}

fn shown(token: &Token) -> String {
    match token {
        Token::Number(value) => format!("the number {value}"),
        Token::Seconds(value) => format!("the duration of {value} s"),
        Token::Name(name) => format!("`{name}`"),
        Token::Braced(name) => format!("`{{{name}}}`"),
        Token::Sign(sign) => format!("`{sign}`"),
        Token::End => "the end".to_owned(),
    }
}

/// How strongly a sign between two values binds: left, right.
fn binding(sign: &str) -> Option<(Binary, u8, u8)> {
    Some(match sign {
        "||" => (Binary::Or, 1, 2),
        "&&" => (Binary::And, 3, 4),
        "==" => (Binary::Equal, 5, 6),
        "!=" => (Binary::NotEqual, 5, 6),
        "<" => (Binary::Less, 5, 6),
        "<=" => (Binary::LessOrEqual, 5, 6),
        ">" => (Binary::Greater, 5, 6),
        ">=" => (Binary::GreaterOrEqual, 5, 6),
        "+" => (Binary::Add, 7, 8),
        "-" => (Binary::Subtract, 7, 8),
        "*" => (Binary::Multiply, 9, 10),
        "/" => (Binary::Divide, 9, 10),
        // From right to left, and stronger than a sign before it: -2^2 is -4.
        "^" => (Binary::Power, 14, 13),
        _ => return None,
    })
}

/// How strongly `-` and `!` before a value bind.
const PREFIX: u8 = 11;
/// The word `not` takes a whole comparison: `not a > b`.
const NOT: u8 = 5;

const FUNCTIONS: &str = "abs sqrt exp ln log10 sin cos tan atan2 round floor ceil min max clamp if \
                         integral hours starts delta rate previous smooth";

impl Parser {
    fn peek(&self) -> Token {
        self.tokens[self.next].1.clone()
    }

    fn take(&mut self) -> Token {
        let token = self.peek();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn wrong(&self, what: impl Into<String>) -> ExpressionError {
        ExpressionError { at: self.tokens[self.next].0, what: what.into() }
    }

    fn push(&mut self, step: Step) {
        let taken = match step {
            Step::Number(_) | Step::Input(_) => 0,
            Step::Unary(_) | Step::Past(..) => 1,
            Step::Binary(_) => 2,
            Step::Choose => 3,
        };
        self.height = self.height + 1 - taken;
        self.highest = self.highest.max(self.height);
        self.program.push(step);
    }

    /// One value, up to a sign that binds less than `least`.
    fn value(&mut self, least: u8) -> Result<(), ExpressionError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong(format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.operand()?;
        loop {
            if self.peek() == Token::Number(std::f64::consts::PI) && self.after_number() {
                // As on paper: 2π.
                self.next += 1;
                self.push(Step::Number(std::f64::consts::PI));
                self.push(Step::Binary(Binary::Multiply));
                continue;
            }
            let Token::Sign(sign) = self.peek() else { break };
            let Some((function, left, right)) = binding(sign) else { break };
            if left < least {
                break;
            }
            self.next += 1;
            self.value(right)?;
            self.push(Step::Binary(function));
        }
        self.depth -= 1;
        Ok(())
    }

    fn after_number(&self) -> bool {
        matches!(self.tokens.get(self.next.wrapping_sub(1)), Some((_, Token::Number(_))))
    }

    fn operand(&mut self) -> Result<(), ExpressionError> {
        let at = self.next;
        match self.take() {
            Token::Number(value) => self.push(Step::Number(value)),
            Token::Name(name) if self.peek() == Token::Sign("(") => {
                self.next = at;
                self.call(&name)?;
            }
            Token::Name(name) | Token::Braced(name) => {
                self.next = at;
                let input = self.input(&name)?;
                self.next += 1;
                self.push(Step::Input(input));
            }
            Token::Sign("(") => {
                self.value(0)?;
                self.close()?;
            }
            Token::Sign("-") => {
                self.value(PREFIX)?;
                self.push(Step::Unary(Unary::Negate));
            }
            Token::Sign("+") => self.value(PREFIX)?,
            Token::Sign(sign @ ("!" | "not")) => {
                self.value(if sign == "!" { PREFIX } else { NOT })?;
                self.push(Step::Unary(Unary::Not));
            }
            other @ (Token::Seconds(_) | Token::Sign(_) | Token::End) => {
                self.next = at;
                return Err(self.wrong(format!("a value is missing before {}", shown(&other))));
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), ExpressionError> {
        if self.peek() != Token::Sign(")") {
            return Err(self.wrong(format!("`)` is missing before {}", shown(&self.peek()))));
        }
        self.next += 1;
        Ok(())
    }

    fn input(&mut self, name: &str) -> Result<usize, ExpressionError> {
        let (asset, tag) = match name.split_once('/') {
            Some((asset, tag)) => (Some(asset), tag),
            None => (None, name),
        };
        let asset = asset.map(AssetId::new).transpose();
        let asset = asset.map_err(|bad| self.wrong(bad.to_string()))?;
        let tag = TagId::new(tag).map_err(|bad| self.wrong(bad.to_string()))?;
        let name = TagName { asset, tag };
        if let Some(known) = self.inputs.iter().position(|input| *input == name) {
            return Ok(known);
        }
        if self.inputs.len() == INPUTS_MAX {
            return Err(self.wrong(format!("more than {INPUTS_MAX} different tags")));
        }
        self.inputs.push(name);
        Ok(self.inputs.len() - 1)
    }

    /// A function from its name on.
    fn call(&mut self, name: &str) -> Result<(), ExpressionError> {
        let unary = match name {
            "abs" => Some(Unary::Abs),
            "sqrt" => Some(Unary::Sqrt),
            "exp" => Some(Unary::Exp),
            "ln" => Some(Unary::Ln),
            "log10" => Some(Unary::Log10),
            "sin" => Some(Unary::Sin),
            "cos" => Some(Unary::Cos),
            "tan" => Some(Unary::Tan),
            "round" => Some(Unary::Round),
            "floor" => Some(Unary::Floor),
            "ceil" => Some(Unary::Ceil),
            _ => None,
        };
        if let Some(function) = unary {
            self.arguments(name, 1)?;
            self.push(Step::Unary(function));
            return Ok(());
        }
        let past = match name {
            "integral" => Some(Past::Integral),
            "hours" => Some(Past::Hours),
            "starts" => Some(Past::Starts),
            "delta" => Some(Past::Delta),
            "rate" => Some(Past::Rate),
            "previous" => Some(Past::Previous),
            _ => None,
        };
        if let Some(function) = past {
            self.arguments(name, 1)?;
            self.push_past(function);
            return Ok(());
        }
        match name {
            "min" | "max" => {
                let function = if name == "min" { Binary::Min } else { Binary::Max };
                self.next += 2;
                self.value(0)?;
                while self.peek() == Token::Sign(",") {
                    self.next += 1;
                    self.value(0)?;
                    self.push(Step::Binary(function));
                }
                self.close()
            }
            "atan2" => {
                self.arguments(name, 2)?;
                self.push(Step::Binary(Binary::Atan2));
                Ok(())
            }
            "clamp" => {
                self.next += 2;
                self.value(0)?;
                for function in [Binary::Max, Binary::Min] {
                    self.comma(name, 3)?;
                    self.value(0)?;
                    self.push(Step::Binary(function));
                }
                self.close()
            }
            "if" => {
                self.arguments(name, 3)?;
                self.push(Step::Choose);
                Ok(())
            }
            "smooth" => {
                self.next += 2;
                self.value(0)?;
                self.comma(name, 2)?;
                let Token::Seconds(constant) = self.peek() else {
                    return Err(self.wrong("`smooth(VALUE, 30s)` takes a duration in second place"));
                };
                if constant <= 0.0 {
                    return Err(self.wrong("the time constant must be longer than 0 s"));
                }
                self.next += 1;
                self.close()?;
                self.push_past(Past::Smooth(constant));
                Ok(())
            }
            _ => Err(self.wrong(format!("`{name}` is no function: {FUNCTIONS}"))),
        }
    }

    fn push_past(&mut self, function: Past) {
        self.push(Step::Past(function, self.cells));
        self.cells += 1;
    }

    /// `NAME ( value , … )` with this many values.
    fn arguments(&mut self, name: &str, count: usize) -> Result<(), ExpressionError> {
        self.next += 2;
        for place in 0..count {
            if place > 0 {
                self.comma(name, count)?;
            }
            self.value(0)?;
        }
        if self.peek() == Token::Sign(",") {
            return Err(self.wrong(format!("`{name}` takes {count} arguments")));
        }
        self.close()
    }

    fn comma(&mut self, name: &str, count: usize) -> Result<(), ExpressionError> {
        if self.peek() != Token::Sign(",") {
            return Err(self.wrong(format!("`{name}` takes {count} arguments")));
        }
        self.next += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, at: usize, what: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.at == at && error.what.contains(what), "{text}: {error}");
    }

    #[test]
    fn mistakes_name_their_place() {
        check("", 1, "a value is missing before the end");
        check("1 +", 4, "a value is missing before the end");
        check("1 2", 3, "one too many");
        check("(1 + 2", 7, "`)` is missing");
        check("a $ b", 3, "has no meaning");
        check("π·µ", 3, "`µ` has no meaning");
        check("{a", 1, "not closed");
        check("{a b}", 1, "not an identifier");
        check("sine(1)", 1, "is no function");
        check("sqrt(1, 2)", 7, "takes 1 arguments");
        check("if(1, 2)", 8, "takes 3 arguments");
        check("smooth(x, 3)", 11, "a duration");
        check("5s", 1, "a value is missing before the duration");
        check(&"(".repeat(100), 33, "levels deep");
    }

    #[test]
    fn sizes_are_bounded() {
        check(&"1+".repeat(600), TEXT_MAX, "longer than");
        let many: Vec<String> = (0..=INPUTS_MAX).map(|i| format!("t{i}")).collect();
        let error = parse(&many.join("+")).unwrap_err();
        assert!(error.what.contains("different tags"), "{error}");
    }
}
