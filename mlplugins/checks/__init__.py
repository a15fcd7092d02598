"""Is a model file physical, and is it the same in every engine?"""
