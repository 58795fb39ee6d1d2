use super::*;

fn number(value: f64) -> Cell {
    Cell::Number(value)
}

fn names() -> Vec<String> {
    vec!["power".to_owned(), "grade".to_owned(), "noise".to_owned()]
}

/// Fails (rarely) above a limit that depends on the grade.
fn rows(count: usize) -> (Vec<Vec<Cell>>, Vec<String>) {
    let mut random = fastrand::Rng::with_seed(4);
    (0..count)
        .map(|_| {
            let (power, grade) = (random.f64(), ["L", "M", "H"][random.usize(0..3)]);
            let limit = if grade == "L" { 0.9 } else { 0.95 };
            let label = if power > limit { "broken" } else { "fine" };
            let cells = vec![number(power), Cell::Text(grade.to_owned()), number(random.f64())];
            (cells, label.to_owned())
        })
        .unzip()
}

fn learnt() -> (Model, Figures) {
    let (rows, labels) = rows(1500);
    learn(&names(), &rows, &labels, 1).expect("two classes")
}

#[test]
fn a_rare_class_is_found_and_its_probability_holds() {
    let (model, figures) = learnt();
    assert!(model.is_sound());
    assert_eq!(model.classes, ["fine", "broken"]);
    let broken = &figures.classes[0];
    assert_eq!(broken.class, "broken");
    assert!(broken.f1 > 0.9 && broken.pr_auc > 0.95, "{figures:?}");
    assert!(figures.majority > 0.9 && figures.accuracy > figures.majority, "{figures:?}");
    let ask = |power, grade: &str| {
        let cells = [number(power), Cell::Text(grade.to_owned()), number(0.5)];
        let p = model.probabilities(&model.inputs_of(&cells));
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        p[1]
    };
    assert!(ask(0.93, "L") > 0.5 && ask(0.93, "H") < 0.5);
    assert!(ask(0.2, "M") < 0.02);
    assert_eq!(model.importances()[0].0, "power");
}

#[test]
fn unknown_texts_and_missing_values_do_not_fail() {
    let (model, _) = learnt();
    for cells in [
        [number(0.99), Cell::Text("never seen".to_owned()), number(0.1)],
        [number(f64::NAN), number(f64::NAN), number(f64::NAN)],
        [number(f64::INFINITY), number(17.0), Cell::Text("what".to_owned())],
    ] {
        let p = model.probabilities(&model.inputs_of(&cells));
        assert!(p.iter().all(|p| (0.0..=1.0).contains(p)), "{p:?}");
    }
}

#[test]
fn several_named_classes_are_told_apart() {
    let mut random = fastrand::Rng::with_seed(6);
    let classes = ["inner race", "outer race", "ball", "none"];
    let (rows, labels): (Vec<Vec<Cell>>, Vec<String>) = (0..800)
        .map(|row| {
            let class = row % 4;
            let x = class as f64 + 0.3 * random.f64();
            (vec![number(x), number(random.f64())], classes[class].to_owned())
        })
        .unzip();
    let names = ["x".to_owned(), "noise".to_owned()];
    let (model, figures) = learn(&names, &rows, &labels, 1).expect("four classes");
    assert!(figures.accuracy > 0.97, "{figures:?}");
    assert_eq!(figures.classes.len(), 4);
    let p = model.probabilities(&model.inputs_of(&[number(2.1), number(0.5)]));
    let (class, probability) = model.decide(&p, 0.5);
    assert_eq!(model.classes[class], "ball");
    assert!(probability > 0.8, "{p:?}");
    let inputs = model.inputs_of(&[number(2.1), number(0.5)]);
    let (expected, columns) = model.contributions(&inputs, class);
    let sum = expected + columns.iter().map(|(_, value)| value).sum::<f64>();
    let mut sums = vec![0.0; 4];
    model.boosted.sum(&inputs, &mut sums);
    assert!((sum - sums[class]).abs() < 1e-9);
}

#[test]
fn what_cannot_be_learnt_is_refused_with_the_reason() {
    let (rows, labels) = rows(100);
    let same = vec!["fine".to_owned(); 100];
    assert_eq!(
        learn(&names(), &rows, &same, 1).expect_err("one class"),
        LearnError::OneClass("fine".to_owned())
    );
    let numbers: Vec<String> = (0..100).map(|row| row.to_string()).collect();
    let error = learn(&names(), &rows, &numbers, 1).expect_err("a measurement");
    assert_eq!(error, LearnError::TooManyClasses(100));
    let constant = vec![vec![number(1.0), Cell::Text("a".to_owned()), number(f64::NAN)]; 100];
    let error = learn(&names(), &constant, &labels, 1).expect_err("nothing varies");
    assert_eq!(error, LearnError::Constant);
}

#[test]
fn a_column_of_serial_numbers_is_no_memory() {
    let (mut rows, labels) = rows(600);
    for (number, row) in rows.iter_mut().enumerate() {
        row[1] = Cell::Text(format!("S{number}"));
    }
    let (model, _) = learn(&names(), &rows, &labels, 1).expect("two classes");
    assert_eq!(model.inputs[1].content, Content::Texts(Vec::new()));
}

#[test]
fn precision_over_recall_is_as_by_hand() {
    // Ranked: hit, miss, hit, miss; the last two tie.
    let area = average_precision(&[0.9, 0.8, 0.3, 0.3], &[true, false, true, false]);
    assert!((area - (0.5 + 0.5 * 0.5)).abs() < 1e-12, "{area}");
}
