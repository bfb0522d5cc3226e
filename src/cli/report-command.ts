import { resolve } from 'node:path';
import type { StageContext } from '../runs/events.js';
import type { Setup } from './entry.js';
import { listen } from './listen.js';
import { addReportingOptions, readReporting } from './options.js';

/** Writes the report of a run folder and resolves to its path. */
export type Report = (runFolder: string, context: StageContext) => Promise<string>;

/** `report RUN`: report.md and report.html of a run that is there. */
export function reportCommand(report: Report): Setup {
  return (command, host) => {
    command.argument('<run>', 'Run folder.');
    addReportingOptions(command);
    command.action(async (run: string) => {
      await listen(readReporting(command), host, (context) => report(resolve(run), context));
    });
  };
}
