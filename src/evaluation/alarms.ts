import path from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { readLines } from '../runs/json-lines.js';

/** File of a run folder with every alarm that spoke, one a line. */
export const ALARMS_FILE = 'alarms.jsonl';

const alarm = z.object({ step: z.int(), name: z.string(), message: z.string() });
export type RunAlarm = z.infer<typeof alarm>;

/**
 * The alarms of a run, in the order in which they spoke; none where none did.
 *
 * @throws UserError when a line is no alarm
 */
export function readAlarms(runFolder: string): RunAlarm[] {
  const file = path.join(runFolder, ALARMS_FILE);
  return Array.from(readLines(file), ({ text, number }) => {
    try {
      return alarm.parse(JSON.parse(text));
    } catch (cause) {
      const where = `${file}:${number}`;
      throw new UserError({
        code: 'alarms.line',
        message: 'This is no alarm of a run.',
        where,
        fix: 'Remove the line.',
        cause,
      });
    }
  });
}
