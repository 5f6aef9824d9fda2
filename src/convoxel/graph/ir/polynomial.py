"""Whole-number algebra on size expressions: sums of products are kept in one order, so equal sizes get equal text.

Readers that infer sizes themselves (ONNX) compute ``h + 2 - 3 + 1`` at every layer; here it becomes ``h`` again. The
normal form is a polynomial over names and over quotients that do not divide. It proves only what follows from
expanding products and taking whole multiples out of a quotient; two equal sizes may still have different texts.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction

from convoxel.graph.ir.text_cache import kept_by_length

Terms = dict[tuple[str, ...], int]
"""Coefficient of every product of names or quotients; the empty product is the constant."""

Relaxed = dict[tuple[str, ...], Fraction]
"""The same with fractions."""


_LONGEST_QUOTIENT = 64


@kept_by_length
def syntax(text: str) -> ast.expr:
    """Return Python's syntax tree of an expression, which must not be changed."""
    return ast.parse(text, mode="eval").body


def add(a: str | int, b: str | int, sign: int = 1) -> str:
    """Return a + sign · b in normal form.

    >>> add("h + 2", 3, -1)
    'h - 1'
    """
    return _text(_sum(_terms(a), _terms(b), sign))


def multiply(a: str | int, b: str | int) -> str:
    """Return a · b in normal form.

    >>> multiply("h + 1", 2), multiply("n", "h // 2")
    ('2*h + 2', '(h // 2)*n')
    """
    return _text(_product(_terms(a), _terms(b)))


def _sum(left: Terms, right: Terms, sign: int) -> Terms:
    terms = dict(left)
    for product, coefficient in right.items():
        terms[product] = terms.get(product, 0) + sign * coefficient
    return terms


def _product(left: Terms, right: Terms) -> Terms:
    terms: Terms = {}
    for p, x in left.items():
        for q, y in right.items():
            product = tuple(sorted((*p, *q)))
            terms[product] = terms.get(product, 0) + x * y
    return terms


def floor_divide(a: str | int, b: str | int) -> str:
    """Return ⌊a / b⌋ in normal form: whole multiples of b leave the quotient, and negatives are rounded up instead.

    >>> floor_divide("2*h + 3", 2), floor_divide("n*h*64", "n*64"), floor_divide("(h + 1)//2", 2)
    ('h + 1', 'h', '(h + 1) // 4')
    >>> floor_divide("3*h*w", "6*w"), floor_divide("h*w + 2*h - w - 2", "h - 1")
    ('h // 2', 'w + 2')
    >>> floor_divide("3 - h", 2)  # ⌊−x / b⌋ = −⌊(x + b − 1) / b⌋
    '-(h // 2) + 1'
    """
    dividend, divisor = _cancelled(_terms(a), _terms(b))
    exact = _exact_quotient(dividend, divisor) if len(divisor) > 1 else None
    if exact is not None:
        return _text(exact)
    if len(divisor) != 1:
        return f"({_text(dividend)}) // ({_text(divisor)})"
    ((factors, number),) = divisor.items()
    if number <= 0:
        return f"({_text(dividend)}) // ({_text(divisor)})"
    if not factors and next((dividend[product] for product in _ordered(dividend) if product), 1) < 0:
        negative = add(multiply(_text(dividend), -1), number - 1)
        return multiply(floor_divide(negative, number), -1)
    whole: Terms = {}
    rest: Terms = {}
    for product, coefficient in dividend.items():
        left = _without(product, factors)
        if left is not None and coefficient // number:
            whole[left] = whole.get(left, 0) + coefficient // number
        if left is None or coefficient % number:
            rest[product] = coefficient if left is None else coefficient % number
    if not rest or (not factors and rest.keys() == {()} and rest[()] < number):
        return _text(whole)
    if not factors:
        common = math.gcd(number, *(value for product, value in rest.items() if product))
        rest = {product: value // common for product, value in rest.items()}  # ⌊(2x + 1) / 4⌋ = ⌊x / 2⌋
        number //= common
    text = _nested(_text(rest), number) if not factors else f"({_text(rest)}) // ({_text({factors: number})})"
    return add(text, _text(whole)) if whole else text


def _cancelled(dividend: Terms, divisor: Terms) -> tuple[Terms, Terms]:
    """Return dividend and divisor without the factors that all of their products share."""
    dividend, divisor = ({p: c for p, c in terms.items() if c} for terms in (dividend, divisor))
    products = [*dividend, *divisor]
    common = Counter(products[0]) if products else Counter[str]()
    for product in products[1:]:
        common &= Counter(product)
    shared = tuple(common.elements())
    if not shared or not divisor:
        return dividend, divisor or {(): 0}
    parts = [{_without(p, shared) or (): c for p, c in terms.items()} for terms in (dividend, divisor)]
    return parts[0], parts[1]


def _exact_quotient(dividend: Terms, divisor: Terms) -> Terms | None:
    """Return the polynomial that times the divisor is the dividend, if there is one: long division, term by term."""
    variables = sorted({factor for terms in (dividend, divisor) for product in terms for factor in product})

    def leading(terms: Terms) -> tuple[str, ...]:
        return max(terms, key=lambda product: [product.count(variable) for variable in variables])

    rest = {product: coefficient for product, coefficient in dividend.items() if coefficient}
    first = leading(divisor)
    quotient: Terms = {}
    while rest and len(quotient) < _LONGEST_QUOTIENT:
        product = leading(rest)
        factor, left = _without(product, first), rest[product] % divisor[first]
        if factor is None or left:
            return None
        term = {tuple(sorted(factor)): rest[product] // divisor[first]}
        quotient.update(term)
        rest = {key: value for key, value in _sum(rest, _product(term, divisor), -1).items() if value}
    return None if rest else quotient


def relaxed(text: str, sign: int) -> Relaxed:
    """Return a polynomial without whole quotients that is never below (``sign`` 1) or above (−1) the one in ``text``.

    (x − b + 1) / b ≤ ⌊x / b⌋ ≤ x / b.
    """
    return _relaxed(_terms(text), sign)


def _relaxed(terms: Mapping[tuple[str, ...], int | Fraction], sign: int) -> Relaxed:
    found: Relaxed = {}
    for product, coefficient in terms.items():
        parts = _quotient(product[0]) if len(product) == 1 else None
        if parts is None or not coefficient:
            found[product] = found.get(product, Fraction(0)) + coefficient
            continue
        inner, divisor = parts
        upwards = (sign > 0) == (coefficient > 0)
        inside = _relaxed(_terms(inner), 1 if upwards else -1)
        inside[()] = inside.get((), Fraction(0)) - (0 if upwards else divisor - 1)
        for each, number in inside.items():
            found[each] = found.get(each, Fraction(0)) + coefficient * number / divisor
    return found


@kept_by_length
def _quotient(text: str) -> tuple[str, int] | None:
    """Return x and b of an ⌊x / b⌋."""
    tree = syntax(text)
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.FloorDiv) and isinstance(tree.right, ast.Constant):
        divisor = tree.right.value
        return (ast.unparse(tree.left), divisor) if isinstance(divisor, int) and divisor > 0 else None
    return None


def _nested(text: str, number: int) -> str:
    """⌊(⌊x / a⌋ + c) / b⌋ = ⌊(x + a c) / (a b)⌋."""
    terms = _terms(text)
    products = [product for product in terms if product]
    if len(products) == 1 and len(products[0]) == 1 and terms[products[0]] == 1:
        parts = _quotient(products[0][0])
        if parts is not None:
            left, inner = parts
            return floor_divide(add(left, inner * terms.get((), 0)), inner * number)
    return f"{text} // {number}" if text.isidentifier() else f"({text}) // {number}"


def _without(product: tuple[str, ...], factors: tuple[str, ...]) -> tuple[str, ...] | None:
    left = list(product)
    for factor in factors:
        if factor not in left:
            return None
        left.remove(factor)
    return tuple(left)


def _terms(value: str | int) -> Terms:
    return {(): value} if isinstance(value, int) else _parsed(value)


@kept_by_length
def _parsed(text: str) -> Terms:
    return _read(syntax(text))


def _read(node: ast.expr) -> Terms:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return {(): node.value}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        left, right = _read(node.left), _read(node.right)
        if isinstance(node.op, ast.Mult):
            return _product(left, right)
        return _sum(left, right, 1 if isinstance(node.op, ast.Add) else -1)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return {product: -coefficient for product, coefficient in _read(node.operand).items()}
    return {(ast.unparse(node),): 1}


def _ordered(terms: Terms) -> list[tuple[str, ...]]:
    """Return the products that occur, those of many factors first."""
    return [product for product in sorted(terms, key=lambda p: (-len(p), p)) if terms[product]]


def _text(terms: Terms) -> str:
    parts: list[str] = []
    for product in _ordered(terms):
        coefficient = terms[product]
        factors = [f if f.isidentifier() else f"({f})" for f in product]
        if abs(coefficient) != 1 or not factors:
            factors.insert(0, str(abs(coefficient)))
        sign = "-" if coefficient < 0 else "+"
        parts.append(f" {sign} {'*'.join(factors)}" if parts else ("-" if coefficient < 0 else "") + "*".join(factors))
    return "".join(parts) or "0"
