// `await using` needs the symbol; Safari before 18.4 and Node before 20.5 lack it. First import, because classes read it when defined.
(Symbol as { asyncDispose?: symbol }).asyncDispose ??= Symbol.for('Symbol.asyncDispose');

export {};
