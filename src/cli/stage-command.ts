import type { StageConfig, StageName } from '../config/index.js';
import type { StageContext } from '../runs/events.js';
import type { Setup } from './entry.js';
import { listen } from './listen.js';
import { addConfigOptions, readConfig, readReporting } from './options.js';

/** A stage: takes its configuration, reports through the context, resolves to the run folder. */
export type Stage<Name extends StageName> = (config: StageConfig<Name>, context: StageContext) => Promise<string>;

/** The command of a stage that leaves a run folder; its path is what stdout gets, unless `--json` asks for events. */
export function stageCommand<Name extends StageName>(name: Name, stage: Stage<Name>): Setup {
  return (command, host) => {
    addConfigOptions(command, name);
    command.action(async () => {
      const config = await readConfig(command, name);
      await listen(readReporting(command), host, (context) => stage(config, context));
    });
  };
}

/** `run RECIPE`: the same with a YAML file as its argument. */
export function recipeCommand(pipeline: Stage<'run'>): Setup {
  return (command, host) => {
    command.argument('<recipe>', 'YAML file with settings.');
    addConfigOptions(command, 'run');
    command.action(async (recipe: string) => {
      const config = await readConfig(command, 'run', [recipe]);
      await listen(readReporting(command), host, (context) => pipeline(config, context));
    });
  };
}
