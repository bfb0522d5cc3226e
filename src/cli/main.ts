import { ENTRIES } from './commands.js';
import { runCli } from './run-cli.js';

const code = await runCli(process.argv.slice(2), ENTRIES);
// Ends the process even where a worker still runs, after everything written has left.
process.stdout.write('', () => {
  process.stderr.write('', () => process.exit(code));
});
