//! Expressions over tags: what a `[[computed]]` tag is made of.
//!
//! ```text
//! torque * rpm * 2π / 60              arithmetic; a tag of the same asset by its id
//! {P-102/flow} - {flow-out}           braces around names with `/` or `-`
//! if(running, current / rated, 0)     comparisons and logic give 1 or 0
//! hours(speed > 50)                   what has a memory: see [`Memory`]
//! ```
//!
//! An expression is parsed once ([`parse`]) into a program for a stack, so that evaluating it
//! allocates nothing. Arithmetic is IEEE 754; what has no value (0/0, √−1) is NaN, and whoever
//! evaluates it says so. Bounds: [`TEXT_MAX`] bytes, [`DEPTH_MAX`] levels, [`INPUTS_MAX`] tags.

mod parse;

pub use parse::{ExpressionError, parse};

use super::ids::{AssetId, TagId, TagPath};

/// Longest expression, in bytes.
pub const TEXT_MAX: usize = 1_000;
/// Deepest nesting, which also bounds the stack.
pub const DEPTH_MAX: usize = 32;
/// Most different tags in one expression.
pub const INPUTS_MAX: usize = 32;

/// A tag as an expression names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagName {
    /// The asset, when it is not the asset of the computed tag itself.
    pub asset: Option<AssetId>,
    /// The tag.
    pub tag: TagId,
}

impl TagName {
    /// Its full name, seen from a tag of the asset `home`.
    #[must_use]
    pub fn path(&self, home: &AssetId) -> TagPath {
        let asset = self.asset.as_ref().unwrap_or(home).clone();
        TagPath { asset, tag: self.tag.clone() }
    }
}

/// A function of one value and its own past. Intervals are in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Past {
    /// Integral over time in units × seconds, by trapezoids.
    Integral,
    /// Hours during which the value was not 0.
    Hours,
    /// How often the value went from 0 to something else.
    Starts,
    /// Change since the last evaluation.
    Delta,
    /// Change per second.
    Rate,
    /// The value of the last evaluation.
    Previous,
    /// First-order low pass with this time constant, in seconds.
    Smooth(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Unary {
    Negate,
    Not,
    Abs,
    Sqrt,
    Exp,
    Ln,
    Log10,
    Sin,
    Cos,
    Tan,
    Round,
    Floor,
    Ceil,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    And,
    Or,
    Min,
    Max,
    Atan2,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Number(f64),
    Input(usize),
    Unary(Unary),
    Binary(Binary),
    /// Pops otherwise, then, condition; pushes one of them.
    Choose,
    /// Replaces the value by a function of it and of this cell.
    Past(Past, usize),
}

/// A parsed expression.
///
/// Invariant: the program leaves exactly one value, uses only inputs and cells that exist, and
/// never needs more than `stack` places.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    text: String,
    inputs: Vec<TagName>,
    program: Vec<Step>,
    cells: usize,
    stack: usize,
}

/// What the functions with a memory remember, one cell each, and the stack of the evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    cells: Vec<Cell>,
    stack: Vec<f64>,
}

/// `last` is NaN before the first value.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cell {
    last: f64,
    total: f64,
}

impl Expression {
    /// The expression as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tags it rests on, each once, in the order of their first mention.
    #[must_use]
    pub fn inputs(&self) -> &[TagName] {
        &self.inputs
    }

    /// An empty memory for it.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let cells = vec![Cell { last: f64::NAN, total: 0.0 }; self.cells];
        Memory { cells, stack: Vec::with_capacity(self.stack) }
    }

    /// The value for these inputs, in the order of [`Self::inputs`].
    ///
    /// `seconds` since the evaluation before; `None` when there is none or when too little is known
    /// of the time between (a gap): functions of the past then begin anew from here, totals stay.
    /// NaN when it has no value.
    ///
    /// # Panics
    /// When `inputs` is shorter than [`Self::inputs`], or `memory` belongs to another expression.
    #[must_use]
    pub fn evaluate(&self, inputs: &[f64], seconds: Option<f64>, memory: &mut Memory) -> f64 {
        let Memory { cells, stack } = memory;
        stack.clear();
        for step in &self.program {
            let value = match *step {
                Step::Number(number) => number,
                Step::Input(index) => inputs[index],
                Step::Unary(function) => function.apply(pop(stack)),
                Step::Binary(function) => {
                    let right = pop(stack);
                    function.apply(pop(stack), right)
                }
                Step::Choose => {
                    let (otherwise, then) = (pop(stack), pop(stack));
                    let condition = pop(stack);
                    if condition.is_nan() {
                        f64::NAN
                    } else if is_true(condition) {
                        then
                    } else {
                        otherwise
                    }
                }
                Step::Past(function, cell) => function.apply(pop(stack), seconds, &mut cells[cell]),
            };
            stack.push(value);
        }
        pop(stack)
    }
}

impl Memory {
    /// What must be kept over a restart: two numbers a cell.
    #[must_use]
    pub fn to_numbers(&self) -> Vec<f64> {
        self.cells.iter().flat_map(|cell| [cell.last, cell.total]).collect()
    }

    /// Takes up [`Self::to_numbers`]; numbers of another expression are left alone, `false` then.
    pub fn restore(&mut self, numbers: &[f64]) -> bool {
        if numbers.len() != 2 * self.cells.len() {
            return false;
        }
        for (cell, pair) in self.cells.iter_mut().zip(numbers.chunks_exact(2)) {
            *cell = Cell { last: pair[0], total: pair[1] };
        }
        true
    }
}

fn pop(stack: &mut Vec<f64>) -> f64 {
    stack.pop().expect("the parser counts what the program leaves on the stack")
}

fn is_true(value: f64) -> bool {
    value.abs() > 0.0
}

impl Unary {
    fn apply(self, value: f64) -> f64 {
        match self {
            Self::Negate => -value,
            Self::Not if value.is_nan() => f64::NAN,
            Self::Not => f64::from(u8::from(!is_true(value))),
            Self::Abs => value.abs(),
            Self::Sqrt => value.sqrt(),
            Self::Exp => value.exp(),
            Self::Ln => value.ln(),
            Self::Log10 => value.log10(),
            Self::Sin => value.sin(),
            Self::Cos => value.cos(),
            Self::Tan => value.tan(),
            Self::Round => value.round(),
            Self::Floor => value.floor(),
            Self::Ceil => value.ceil(),
        }
    }
}

impl Binary {
    fn apply(self, left: f64, right: f64) -> f64 {
        let truth = |holds: bool| {
            if left.is_nan() || right.is_nan() { f64::NAN } else { f64::from(u8::from(holds)) }
        };
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Power => left.powf(right),
            Self::Less => truth(left < right),
            Self::LessOrEqual => truth(left <= right),
            Self::Greater => truth(left > right),
            Self::GreaterOrEqual => truth(left >= right),
            Self::Equal => truth(left.total_cmp(&right).is_eq() || left - right == 0.0),
            Self::NotEqual => truth(!(left.total_cmp(&right).is_eq() || left - right == 0.0)),
            Self::And => truth(is_true(left) && is_true(right)),
            Self::Or => truth(is_true(left) || is_true(right)),
            // Unlike `f64::min`, an unknown value stays unknown.
            Self::Min if left.is_nan() || right.is_nan() => f64::NAN,
            Self::Max if left.is_nan() || right.is_nan() => f64::NAN,
            Self::Min => left.min(right),
            Self::Max => left.max(right),
            Self::Atan2 => left.atan2(right),
        }
    }
}

impl Past {
    /// The memory only moves on values: one NaN in between changes no total.
    fn apply(self, value: f64, seconds: Option<f64>, cell: &mut Cell) -> f64 {
        if !value.is_finite() {
            return f64::NAN;
        }
        let Cell { last, total } = *cell;
        let known = !last.is_nan();
        cell.last = value;
        match self {
            Self::Integral => {
                if let Some(seconds) = seconds.filter(|_| known) {
                    cell.total = total + seconds * (last + value) / 2.0;
                }
                cell.total
            }
            Self::Hours => {
                if let Some(seconds) = seconds.filter(|_| known && is_true(last)) {
                    cell.total = total + seconds / 3600.0;
                }
                cell.total
            }
            Self::Starts => {
                // A start counts also when it fell into a gap: the machine is running now.
                if known && !is_true(last) && is_true(value) {
                    cell.total = total + 1.0;
                }
                cell.total
            }
            Self::Delta if !known => f64::NAN,
            Self::Delta => value - last,
            Self::Rate => match seconds.filter(|seconds| known && *seconds > 0.0) {
                Some(seconds) => (value - last) / seconds,
                None => f64::NAN,
            },
            Self::Previous => last,
            Self::Smooth(constant) => {
                let smoothed = match seconds.filter(|_| known) {
                    Some(seconds) => total + (1.0 - (-seconds / constant).exp()) * (value - total),
                    None => value,
                };
                cell.total = smoothed;
                smoothed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn value(text: &str, inputs: &[f64]) -> f64 {
        let expression = parse(text).unwrap();
        expression.evaluate(inputs, None, &mut expression.memory())
    }

    #[track_caller]
    fn check(text: &str, inputs: &[f64], expected: f64) {
        let found = value(text, inputs);
        assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{text} = {found}");
    }

    #[test]
    fn arithmetic_binds_as_on_paper() {
        check("1 + 2 * 3", &[], 7.0);
        check("(1 + 2) * 3", &[], 9.0);
        check("-2 ^ 2", &[], -4.0);
        check("2 ^ 3 ^ 2", &[], 512.0);
        check("2 ^ -1", &[], 0.5);
        check("8 / 2 / 2", &[], 2.0);
        check("1.5e3 - .5", &[], 1499.5);
        check("1 < 2 and not 3 > 4 or 0", &[], 1.0);
        check("1 + 1 == 2", &[], 1.0);
        check("max(1, min(5, 3), 2)", &[], 3.0);
        check("if(x > 2, x, 2)", &[3.0], 3.0);
        check("clamp(x, 0, 1)", &[7.0], 1.0);
    }

    #[test]
    fn shaft_power_from_torque_and_speed() {
        // P = M·ω; 50 N·m at 1480 rpm is 7,749 W.
        check("torque * rpm * 2π/60", &[50.0, 1480.0], 7_749.261_878_854_823);
        check("torque * rpm * 2 * pi / 60", &[50.0, 1480.0], 7_749.261_878_854_823);
    }

    #[test]
    fn names_are_listed_once_in_order() {
        let expression = parse("{P-102/flow} - flow + {P-102/flow} * {motor-speed}").unwrap();
        let home = AssetId::new("P-101").unwrap();
        let paths: Vec<String> =
            expression.inputs().iter().map(|name| name.path(&home).to_string()).collect();
        assert_eq!(paths, ["P-102/flow", "P-101/flow", "P-101/motor-speed"]);
    }

    #[test]
    fn what_has_no_value_is_not_a_number() {
        for text in ["0/0", "sqrt(-1)", "if(0/0, 1, 2)", "0/0 > 1", "max(1, 0/0)", "not (0/0)"] {
            assert!(value(text, &[]).is_nan(), "{text}");
        }
        assert!(value("1/0", &[]).is_infinite());
    }

    fn run(text: &str, steps: &[(f64, Option<f64>)]) -> Vec<f64> {
        let expression = parse(text).unwrap();
        let mut memory = expression.memory();
        steps.iter().map(|(x, dt)| expression.evaluate(&[*x], *dt, &mut memory)).collect()
    }

    #[test]
    fn totals_grow_with_time_and_stand_still_over_gaps() {
        let hour = Some(3600.0);
        let energy =
            run("integral(x) / 3600", &[(2.0, None), (4.0, hour), (4.0, None), (4.0, hour)]);
        assert_eq!(energy, [0.0, 3.0, 3.0, 7.0]);
        let hours = run("hours(x > 1)", &[(2.0, None), (2.0, hour), (0.0, hour), (0.0, hour)]);
        assert_eq!(hours, [0.0, 1.0, 2.0, 2.0]);
        let starts = run("starts(x)", &[(1.0, None), (0.0, hour), (1.0, None), (1.0, hour)]);
        assert_eq!(starts, [0.0, 0.0, 1.0, 1.0], "who finds it running has seen no start");
    }

    #[test]
    fn changes_need_a_past() {
        let rate = run("rate(x)", &[(1.0, None), (3.0, Some(2.0)), (3.0, None), (4.0, Some(1.0))]);
        assert!(rate[0].is_nan() && rate[2].is_nan());
        assert_eq!((rate[1], rate[3]), (1.0, 1.0));
        let smooth = run("smooth(x, 10s)", &[(0.0, None), (1.0, Some(10.0)), (1.0, Some(1e6))]);
        assert!((smooth[1] - (1.0 - (-1.0_f64).exp())).abs() < 1e-12);
        assert!((smooth[2] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn an_unknown_value_moves_no_total() {
        let expression = parse("integral(x)").unwrap();
        let mut memory = expression.memory();
        for x in [1.0, f64::NAN, 1.0] {
            assert!(expression.evaluate(&[x], Some(1.0), &mut memory).is_finite() == x.is_finite());
        }
        let mut other = expression.memory();
        assert!(other.restore(&memory.to_numbers()));
        assert_eq!(other, memory);
        assert!(!other.restore(&[1.0]), "numbers of another expression");
        assert!((expression.evaluate(&[1.0], Some(1.0), &mut other) - 2.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn whatever_parses_evaluates(text in "[-+*/^()<>=!a-c0-9., π{}]{0,40}", x in any::<f64>()) {
            if let Ok(expression) = parse(&text) {
                let inputs = vec![x; expression.inputs().len()];
                let mut memory = expression.memory();
                let found = expression.evaluate(&inputs, Some(1.0), &mut memory);
                prop_assert!(memory.stack.is_empty(), "{} = {}", text, found);
            }
        }
    }
}
