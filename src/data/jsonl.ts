import { answered, type Message } from '../config/messages.js';
import { UserError } from '../errors.js';
import type { Table } from './csv.js';

/**
 * Reads JSON Lines: one object a line, its values strings, numbers, booleans or null (read as an empty string).
 * Blank lines are skipped. The columns are all keys that occur. A list under `messages` is a conversation, and no column.
 *
 * @throws UserError for a line that is not JSON, not an object, or has a nested value.
 */
export function parseJsonl(text: string, file: string): Table {
  const columns = new Set<string>();
  const records: Table['records'][number][] = [];
  text.split('\n').forEach((content, i) => {
    if (content.trim() === '') return;
    const line = i + 1;
    const values: Record<string, string> = {};
    let messages: Message[] | undefined;
    for (const [key, value] of Object.entries(parseObject(content, `${file}:${line}`))) {
      if (key === 'messages' && Array.isArray(value)) {
        messages = conversation(value, `${file}:${line}`);
        continue;
      }
      values[key] = scalar(value, key, `${file}:${line}`);
      columns.add(key);
    }
    records.push({ line, values, ...(messages === undefined ? {} : { messages }) });
  });
  return { columns: [...columns], records };
}

function parseObject(content: string, where: string): object {
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch (cause) {
    throw new UserError({
      code: 'data.invalid-json',
      message: `The line is not valid JSON (${(cause as SyntaxError).message}).`,
      where,
      fix: 'Write one whole JSON object on each line.',
      cause,
    });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw new UserError({
    code: 'data.invalid-json',
    message: `The line is ${Array.isArray(value) ? 'an array' : `the value ${JSON.stringify(value)}`}, not an object.`,
    where,
    fix: 'Write one JSON object on each line, for example {"headline": "…", "joke": "…"}.',
  });
}

function conversation(value: readonly unknown[], where: string): Message[] {
  const parsed = answered.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const turn = typeof issue?.path[0] === 'number' ? `turn ${issue.path[0] + 1}: ` : '';
  throw new UserError({
    code: 'data.invalid-messages',
    message: `The conversation in "messages" is not of the known form: ${turn}${issue?.message ?? 'not understood'}.`,
    where,
    fix: 'Write [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}].',
  });
}

function scalar(value: unknown, key: string, where: string): string {
  if (typeof value === 'string') return value;
  if (value === null) return '';
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  throw new UserError({
    code: 'data.invalid-value',
    message: `The value of "${key}" is ${Array.isArray(value) ? 'an array' : 'an object'}.`,
    where,
    fix: 'Values must be texts or numbers.',
  });
}
