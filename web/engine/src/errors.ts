// The one kind of error that users see. Codes and sentences come from data/errors.json, whether the core or this package found the fault.
import { errorRows, type ErrorCode } from './generated/errors.ts';

export type { ErrorCode };

export class SubbyteError extends Error {
  override readonly name = 'SubbyteError';
  readonly code: ErrorCode;
  /** What the user can do about it. */
  readonly hint: string;
  /** Whether the same call may succeed when it is made again. */
  readonly retryable: boolean;
  /** The values in the message, by name: {file, size, needed} and the like. */
  readonly fields: Record<string, string | number>;

  constructor(plain: PlainError, cause?: unknown) {
    super(plain.message, cause === undefined ? undefined : { cause });
    this.code = plain.code;
    this.hint = plain.hint;
    this.retryable = plain.retryable;
    this.fields = plain.fields ?? {};
  }
}

/** An error as it crosses from the worker, or comes out of the core as JSON. */
export interface PlainError {
  code: ErrorCode;
  message: string;
  hint: string;
  retryable: boolean;
  fields?: Record<string, string | number>;
  cause?: string;
}

const fill = (sentence: string, fields: Record<string, string | number>) =>
  sentence.replace(/\{(\w+)\}/g, (_, key: string) => String(fields[key] ?? '?'));

/** The error `code` with its sentences filled in. */
export function failure(code: ErrorCode, fields: Record<string, string | number> = {}, cause?: unknown): SubbyteError {
  const row = errorRows[code];
  return new SubbyteError({ code, message: fill(row.message, fields), hint: fill(row.hint, fields), retryable: row.retryable, fields }, cause);
}

export const abortError = (reason?: unknown): unknown =>
  reason instanceof Error ? reason : new DOMException('The request was aborted', 'AbortError');

export const isAbort = (error: unknown): boolean => error instanceof Error && error.name === 'AbortError';

/** One line about anything that was thrown. */
export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message || error.name : String(error));

export function toPlain(error: unknown): PlainError {
  const known = error instanceof SubbyteError ? error : failure('kInternal', { what: reasonOf(error) }, error);
  const { code, message, hint, retryable, fields } = known;
  return { code, message, hint, retryable, fields, ...(known.cause === undefined ? {} : { cause: reasonOf(known.cause) }) };
}

const camel = (name: string | number | undefined) => String(name).replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

export function fromPlain(plain: PlainError): SubbyteError {
  // Options have JavaScript's names here: a hint that says max_tokens would lead nowhere.
  if (plain.fields && (plain.code === 'kOptionUnknown' || plain.code === 'kOptionInvalid')) {
    const { option, nearest } = plain.fields;
    return failure(plain.code, { ...plain.fields, option: camel(option), ...(nearest === undefined ? {} : { nearest: camel(nearest) }) });
  }
  return new SubbyteError(plain, plain.cause === undefined ? undefined : new Error(plain.cause));
}
