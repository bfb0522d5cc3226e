import { z } from 'zod';
import { NOTE } from './key.js';
import { type StageName, stageSchemas } from './stages.js';

/**
 * JSON Schema (2020-12) of a stage's YAML file, for editors. Nothing is required in it: what a file leaves out may come
 * from another file, `--set` or a flag. Rules between keys are not in it.
 */
export function jsonSchema(stage: StageName): z.core.JSONSchema.BaseSchema {
  return z.toJSONSchema(stageSchemas[stage], {
    io: 'input',
    override: ({ jsonSchema: schema }) => {
      delete schema.required;
      if (schema[NOTE.defaultText] !== undefined) delete schema.default;
      for (const note of Object.values(NOTE)) Reflect.deleteProperty(schema, note);
    },
  });
}
